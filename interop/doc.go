// Package interop has no code of its own. Its tests compare Cairn byte for byte
// with iroh's own implementation: a small Rust program in this directory, built
// on the published crates bao-tree and, for the long run, iroh-blobs, answers
// what these make of the same blobs and requests.
//
//	go test ./interop
//	go test ./interop -long -timeout 1h
//
// The first needs cargo and about 20 small crates, which are downloaded the
// first time. The second tries many more random cases, and adds iroh's blob
// store and its collections; for that some 270 crates have to be built
// once, which takes minutes. Where there is no cargo, or the crates cannot be
// had, the tests are skipped; -v shows why. What is built is kept in target.
package interop
