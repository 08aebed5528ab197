package blobhttp

// Answer returns the status and the text for an error.
func Answer(err error) (code int, text string) {
	a := answer(err)
	return a.code, a.text
}
