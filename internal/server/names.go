package server

import (
	"math/rand/v2"
	"strconv"
	"strings"
)

// Words of generated run names: brave-panda-1. Each is short enough for a host
// name.
var (
	adjectives = strings.Fields(`
		able agile airy alert amber ample azure basic bold brave breezy bright brisk broad calm candid
		careful cheery chilly civil clean clear clever cosy crimson crisp curious daring deep deft
		eager early easy even exact fair famous fast fearless fine firm fleet fluffy fond frank fresh
		gentle giant glad golden good grand green happy hardy hazel hearty honest humble icy ideal
		jolly jovial keen kind large lasting light lively loyal lucid lucky mellow merry mighty mild
		misty modest neat nimble noble novel olive open patient plain polite proud prudent quick quiet
		rapid ready regal rosy round royal rustic sage scarlet serene sharp shiny silent silver simple
		sleek smart smooth snowy solid spry stable steady still stout strong sunny sure swift tall
		tender tidy tranquil true upbeat useful valiant velvet vivid warm wise witty young zesty`)
	animals = strings.Fields(`
		alpaca ant antelope badger bat bear beaver bee bison boar bobcat bull camel carp cat cheetah
		cod condor coyote crab crane cricket crow deer dingo dog dolphin donkey dove duck eagle eel
		elk emu falcon ferret finch fox frog gecko gibbon goat goose gopher grouse gull hamster hare
		hawk hedgehog heron hippo horse ibex ibis iguana jackal jaguar jay kiwi koala lark lemur
		leopard lion lizard llama lobster lynx macaw magpie mole moose moth mouse mule newt ocelot
		octopus okapi orca oryx otter owl ox panda parrot pelican penguin pigeon pony puffin puma
		quail rabbit raven robin salmon seal shark sheep shrew sloth snail sparrow squid stork swan
		swift tapir tiger toad trout turtle viper vole walrus wasp weasel whale wolf wombat wren yak
		zebra`)
)

// generateName returns a random run name that is not taken: an adjective, an
// animal, and the smallest free number.
func generateName(taken map[string]bool) string {
	stem := adjectives[rand.IntN(len(adjectives))] + "-" + animals[rand.IntN(len(animals))]
	for n := 1; ; n++ {
		if name := stem + "-" + strconv.Itoa(n); !taken[name] {
			return name
		}
	}
}
