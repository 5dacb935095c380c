package relay

// Director decides about requests: where they go, and what is changed on the way. The relay calls it in the goroutine of an
// event loop, one call at a time for each exchange; no method may block. Slices of heads and bodies are valid during a call.
type Director interface {
	// Next returns what is to be done with an exchange after an event.
	Next(x *Exchange, e Event) Step
	// Respond prepares the head of a replica's response, x.Response, for the client: it drops fields, and adds some as
	// x.ResponseExtra. It is not called for informational responses, which are passed on as the slow path does.
	Respond(x *Exchange)
	// End is called once for each exchange whose first Next did not hand it over, when all is sent or lost. x.Outcome says how.
	// After it the exchange belongs to the relay again.
	End(x *Exchange)
}

// Watcher sees the body of a response as it passes, without its framing.
type Watcher interface {
	// Watch gets the next piece, which is valid during the call.
	Watch(piece []byte)
}

// Event is what happened to an exchange.
type Event uint8

// The events.
const (
	HeadArrived   Event = iota // the first one: x.Request is complete
	BodyArrived                // after ReadBody: x.Body has grown, and is not complete
	BodyComplete               // after ReadBody: x.Body is the whole body
	Woken                      // by Handle.Wake
	TimePassed                 // the time of x.WakeAt has come
	ConnectFailed              // no connection to x.Replica: it got nothing of the request; x.Failure says why
	BrokenBefore               // the connection broke before the first byte of a response; x.Failure says why
	TimedOut                   // the replica did not begin to respond in time, or stopped reading
	BadResponse                // the replica's response is not valid HTTP; x.Failure says why
	Withheld                   // the response ended of which nothing was passed on; x.Failure says why it is not whole, or is nil
	BadBody                    // the client's body is not valid HTTP, or arrives too slowly; x.Failure says why
	BodyHeld                   // after Wait: x.Hold bytes of the body are in memory, and more have arrived
)

// Step is what is done with an exchange.
type Step uint8

// The steps.
const (
	// HandOver gives the connection to net/http, with all that was read of this request. Possible while nothing of the request
	// was sent, and nothing of a response but by x.WriteFirst: what net/http sends then is the rest of that response, without its
	// head, and must be in chunks. End is not called after it.
	HandOver Step = iota
	// ReadBody collects the body in x.Body, within the room that x.Body has, and asks again as it arrives.
	ReadBody
	// Wait does nothing until Handle.Wake, x.WakeAt or the end of the client. A body stays with the client, but for x.Hold bytes.
	Wait
	// Send sends the request to x.Replica: x.Body if it was collected, else the body as it arrives.
	Send
	// Reply answers with x.Reply and ends the exchange; after x.WriteFirst it ends the response that was begun.
	Reply
	// Cut ends the exchange and its connections without a word.
	Cut
)

// Outcome is how an exchange ended.
type Outcome uint8

// The outcomes.
const (
	Complete     Outcome = iota // the response is sent
	ClientLeft                  // the client closed its connection, or accepted nothing for too long
	ReplicaBroke                // the replica's connection ended within the response
	WasCut                      // by Cut or Handle.Cut
	BodyFailed                  // the client did not send the rest of the body, or sent it wrongly
)
