# Runs on a rented machine, as the user that the server logs in as. It prints a line
#   setup TEXT     whenever the setup has got further
#   notice TEXT    every time that the cloud says that it takes the machine back
#   blind WHY      once, if the notices cannot be read
# and a dot in between, so that it ends with the connection. Before it comes the variable
#   notices        of which cloud: aws, gcp; empty: nobody takes the machine back, so the script ends with the setup
address=169.254.169.254
last='' token='' notice='' polls=0 unanswered=0 client=''

has() { command -v "$1" >/dev/null 2>&1; }

if has curl; then
	client=curl
elif has wget && wget --version 2>/dev/null | grep -q GNU; then # the one of busybox cannot send PUT
	client=wget
elif has bash && has timeout; then
	client=bash
fi

# bash_request is a script of bash with the arguments METHOD PATH HEADER.
# shellcheck disable=SC2016
bash_request='
exec 3<>/dev/tcp/169.254.169.254/80 || exit
printf "%s %s HTTP/1.0\r\nHost: 169.254.169.254\r\nContent-Length: 0\r\n%s\r\n\r\n" "$1" "$2" "$3" >&3
IFS=" " read -r _ status _ <&3
[ "$status" = 200 ] || exit
while IFS= read -r line <&3 && [ ${#line} -gt 1 ]; do :; done
cat <&3'

# request prints the answer of the metadata service, if it is one of success.
request() { # METHOD PATH HEADER
	case $client in
	curl) curl -fsS --noproxy '*' -m 2 -X "$1" -H "$3" "http://$address$2" ;;
	wget) wget -q --no-proxy -T 2 -t 1 -O - --method="$1" --header="$3" "http://$address$2" ;;
	bash) timeout 2 bash -c "$bash_request" request "$@" ;;
	esac 2>/dev/null
}

# find_notice sets notice, and counts how often nothing was answered.
find_notice() {
	case $notices in
	aws)
		if [ -z "$token" ] || [ $((polls % 15)) -eq 0 ]; then # it is valid for 300 seconds
			token=$(request PUT /latest/api/token 'X-aws-ec2-metadata-token-ttl-seconds: 300')
		fi
		answer=$token
		notice=''
		if [ -n "$token" ]; then
			notice=$(request GET /latest/meta-data/spot/instance-action "X-aws-ec2-metadata-token: $token" | tr '\n' ' ' | grep '"action"')
		fi
		;;
	gcp)
		answer=$(request GET /computeMetadata/v1/instance/preempted 'Metadata-Flavor: Google')
		notice=$(printf '%s\n' "$answer" | grep -x TRUE)
		;;
	esac
	polls=$((polls + 1)) unanswered=$((unanswered + 1))
	[ -z "$answer" ] || unanswered=0
}

while :; do
	setup=$(cat /run/dstack/setup 2>/dev/null || cat /var/lib/dstack/setup 2>/dev/null || echo "running: boots")
	[ "$setup" = "$last" ] || printf 'setup %s\n' "$setup"
	last=$setup
	if [ -n "$notices" ]; then
		find_notice
		[ -z "$notice" ] || printf 'notice %s\n' "$notice"
		[ $unanswered -ne 10 ] || printf 'blind %s does not answer\n' "the metadata service, asked with ${client:-neither curl, wget nor bash},"
	elif [ "$setup" = "done" ]; then
		exit 0
	fi
	echo . || exit 0
	sleep 2
done
