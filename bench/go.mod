module github.com/cairnstore/cairn/bench

go 1.26.0

require github.com/cairnstore/cairn v0.0.0

replace github.com/cairnstore/cairn => ..
