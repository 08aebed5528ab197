package bao

// A Hasher makes the tiles and the root of a blob from its content, in one pass
// and without knowing the size. It must not be used by several goroutines at
// once. The zero Hasher discards the tiles.
type Hasher struct {
	// Emit is that of [Builder].
	Emit func(t Tile, pairs []byte) error

	builder Builder
	groups  int64           // handed to the builder
	buf     [GroupSize]byte // the group that is being written
	n       int             // bytes in buf
}

// Write takes the next bytes of the content. Its error is that of Emit, or that
// there are more than [MaxSize] bytes.
func (h *Hasher) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		if h.n == len(h.buf) { // there is more, so it is not the only group
			if err := h.group(&h.buf, h.n, false); err != nil {
				return len(p) - len(rest), err
			}
			h.n = 0
		}
		if h.n == 0 && len(rest) > GroupSize {
			if err := h.group((*[GroupSize]byte)(rest), GroupSize, false); err != nil {
				return len(p) - len(rest), err
			}
			rest = rest[GroupSize:]
			continue
		}
		k := copy(h.buf[h.n:], rest)
		h.n += k
		rest = rest[k:]
	}
	return len(p), nil
}

func (h *Hasher) group(buf *[GroupSize]byte, n int, only bool) error {
	h.builder.Emit = h.Emit
	err := h.builder.Add(GroupCV(buf, n, h.groups, only))
	h.groups++
	return err
}

// Finish ends the content and returns its hash. The Hasher is used up.
func (h *Hasher) Finish() (root CV, err error) {
	if err := h.group(&h.buf, h.n, h.groups == 0); err != nil {
		return CV{}, err
	}
	return h.builder.Finish()
}
