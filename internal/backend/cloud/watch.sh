# Runs on a rented machine, as the user that the server logs in as. It prints a line
#   setup TEXT     whenever the setup has got further
#   notice TEXT    every time that the cloud says that it takes the machine back
# and a dot in between, so that it ends with the connection. Before it comes the variable
#   notices        of which cloud: aws, gcp; empty: nobody takes the machine back, so the script ends with the setup
base=http://169.254.169.254
last='' token='' notice='' polls=0

fetch() { # URL [HEADER]
	if command -v curl >/dev/null 2>&1; then
		curl -fsS --noproxy '*' -m 2 ${2:+-H "$2"} "$1" 2>/dev/null
	else
		wget -q --no-proxy -T 2 -t 1 -O - ${2:+--header="$2"} "$1" 2>/dev/null
	fi
}

fetch_token() {
	if command -v curl >/dev/null 2>&1; then
		curl -fsS --noproxy '*' -m 2 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 300' "$base/latest/api/token" 2>/dev/null
	else
		wget -q --no-proxy -T 2 -t 1 -O - --method=PUT --header='X-aws-ec2-metadata-token-ttl-seconds: 300' "$base/latest/api/token" 2>/dev/null
	fi
}

# find_notice sets notice.
find_notice() {
	case $notices in
	aws)
		if [ -z "$token" ] || [ $((polls % 60)) -eq 0 ]; then # it is valid for 300 seconds
			token=$(fetch_token)
		fi
		polls=$((polls + 1))
		notice=$(fetch "$base/latest/meta-data/spot/instance-action" "X-aws-ec2-metadata-token: $token" | tr '\n' ' ')
		;;
	gcp) notice=$(fetch "$base/computeMetadata/v1/instance/preempted" 'Metadata-Flavor: Google' | grep TRUE) ;;
	esac
}

while :; do
	setup=$(cat /var/lib/dstack/setup 2>/dev/null || echo "running: boots")
	[ "$setup" = "$last" ] || printf 'setup %s\n' "$setup"
	last=$setup
	if [ -n "$notices" ]; then
		find_notice
		[ -z "$notice" ] || printf 'notice %s\n' "$notice"
	elif [ "$setup" = "done" ]; then
		exit 0
	fi
	echo .
	sleep 2
done
