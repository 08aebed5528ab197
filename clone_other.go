//go:build !linux

package cairn

import (
	"errors"
	"os"
)

// cloneFile does nothing: here, only a file that is not there yet can be a clone.
var cloneFile = func(dst, src *os.File) error { return errors.ErrUnsupported }
