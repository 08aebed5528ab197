package cairn

// syncDir does nothing: NTFS journals directory entries itself, and Windows
// has no way to sync a directory.
func syncDir(string) error { return nil }
