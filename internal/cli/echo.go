package cli

import "golang.org/x/sys/unix"

// hideInput switches off the echo of a terminal. restore switches it on again.
func hideInput(fd int) (restore func(), err error) {
	before, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil {
		return nil, err
	}
	hidden := *before
	hidden.Lflag &^= unix.ECHO
	if err := unix.IoctlSetTermios(fd, setTermios, &hidden); err != nil {
		return nil, err
	}
	return func() {
		_ = unix.IoctlSetTermios(fd, setTermios, before) // the terminal may be gone
	}, nil
}
