package engine

// BuildEntrypoint returns the command of a container from the command line of an attempt; empty means the image's own.
//
// argv asks for an interactive shell ("-i -c SCRIPT"). bash stays interactive, so that
// it reads its start-up files, where conda is set up; its complaints about a missing
// terminal and the output of those files are discarded. sh reads no start-up files when
// it runs a script, and an interactive sh makes its last command ignore SIGTERM, so sh
// becomes non-interactive.
//
// The shells redirect stderr to stdout: engines read the two through two pipes, and lose
// the order of their lines.
//
// On SIGTERM, which reaches all processes, both shells wait for the processes
// that they started: the container ends with its first process.
func BuildEntrypoint(argv []string) []string {
	if len(argv) != 4 || argv[1] != "-i" || argv[2] != "-c" {
		return argv
	}
	const waitOnSIGTERM = "trap 'trap - TERM; wait; exit 143' TERM\n"
	shell, script := argv[0], waitOnSIGTERM+argv[3]
	switch shell {
	case "/bin/bash":
		return []string{
			shell, "-c", `exec 3>&1 >/dev/null 2>&1; exec "$0" -i -c "$1"`, shell,
			"exec >&3 2>&1 3>&-\n" + script,
		}
	case "/bin/sh":
		return []string{shell, "-c", "exec 2>&1\n" + script}
	default:
		return argv
	}
}

// IsShellCommand reports whether a command line is commands for a shell, so that the image has one.
func IsShellCommand(argv []string) bool {
	return len(argv) == 4 && argv[1] == "-i" && argv[2] == "-c" && (argv[0] == "/bin/bash" || argv[0] == "/bin/sh")
}
