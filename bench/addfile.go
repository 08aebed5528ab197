package main

// addFile adds one large file to an empty store. Cairn hashes it and stores
// its outboard too. For plain files it is a copy with one sync, the limit; the
// databases get values of 64 KiB under increasing keys, in transactions of
// 8 MiB.
func addFile(name string, size int64) workload {
	return workload{
		name:       name,
		title:      "one file of " + formatBytes(float64(size)),
		durability: "whole at the end; a crash before harms nothing else",
		peers:      append([]string{cairnPeer, filesPeer}, databases...),
		size:       size,
		run:        func(c *child) error { return c.with(func(s store) error { return c.addFile(s, size) }) },
		measures:   []measure{elapsed, peakRSS, fileSize},
	}
}

func (c *child) addFile(s store, size int64) error {
	if err := c.start(); err != nil {
		return err
	}
	if err := storeFile(s, c.Source); err != nil {
		return err
	}
	return c.stop(1, size)
}

// storeFile stores a file in whatever way the store has.
func storeFile(s store, path string) error {
	if s, ok := s.(fileAdder); ok {
		return s.AddFile(path)
	}
	return load(s, fileBatches(path, chunkSize))
}
