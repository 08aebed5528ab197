// Package blobhttp serves the blobs of a store over HTTP, and fetches blobs
// from such a server into a store.
//
// # The model
//
// [NewHandler] makes an [http.Handler] of a store. What it sends has been read
// from the store and verified against the blob's hash. A client that has only
// the hash can verify it, too, if it asks for the response of a range request
// (see the package bao) in place of the plain content: that is what [Fetch]
// does, and so it needs no trust in the server, and can go on after every
// failure, from any server, with what it has.
//
// # Routes
//
// HASH is 64 hexadecimal digits or 52 base32 characters, of either case.
//
//	GET, HEAD /blob/HASH          the content
//	GET, HEAD /bao/HASH?ranges=R  the response to a request for R
//	GET, HEAD /blobs              a page of the listing
//	PUT       /blob               adds the body
//	PUT       /blob/HASH          adds the body if it has this hash
//
// /blob/HASH understands Range (also several, up to 64), If-Range, If-Match and
// If-None-Match. Its ETag is strong: the hash in quotes. The Content-Type is
// guessed from the first bytes, and is never one that a browser executes. Of a
// partial blob whose size is proven the ranges that are there can be had.
//
// R is the text form of [bao.Ranges], up to 1024 ranges of chunks; without it
// all are meant. The response of a complete blob has an ETag. A partial blob
// answers for what it has; if it lacks some of R, the header Cairn-Ranges of the
// answer 404 has the first ranges of R that are there.
//
// /blobs answers with an object: "blobs" is an array of objects with "hash",
// "size" and "state", in the order of the hashes; "next", if there is more, is
// the reference to the next page, relative to this one. The query may have
// "prefix" (hexadecimal digits), "after" (a hash) and "limit" (default 256, at
// most 1000).
//
// PUT takes the header "Authorization: Bearer TOKEN" with the token of
// [HandlerOptions], and answers 201 with an object that has "hash" and "size".
// If the body has not the hash in the address nothing is kept, and the status
// is 409. A blob that was there stays what it was.
//
// # Errors
//
// Answers have a line of plain text. 400: a bad hash, range or parameter. 401:
// no token, or a wrong one. 403: nothing can be added here. 404: no such blob;
// or it is partial and lacks what was asked for, which the text names. 405,
// with Allow. 408 and 413: the body stalls or is too large. 412: If-Match names
// something else. 415: the body has a Content-Encoding. 416: no range is inside
// the blob, or there are too many; Content-Range has the size. 500: the data is
// damaged; the text names the bytes. 503: too many requests at once, with
// Retry-After, or the store is closed. 507: it is full.
//
// An error behind the first byte cannot be told any more. The connection is
// closed then, before the length that was stated, so that no client takes a
// part for the whole.
//
// # Limits
//
// Requests that are served at once are limited, others are told to come again.
// A transfer may take any time as long as it goes on: each piece of it, down to
// 16 KiB for slow clients, has [HandlerOptions].StallTimeout. No snapshot and
// no lock of the store is held while a client is waited for. [NewServer] adds
// the limits on headers and idle connections.
//
// There is no limit per client, and one that takes nothing of its responses, or
// sends nothing of its bodies, holds the place of each such request for a whole
// StallTimeout. So a single client can take all places, again and again. Where
// that matters, put a proxy in front that limits each client.
//
// # Security
//
// Everybody who reaches the server can read and list all blobs. There is no
// TLS and no other authentication: put a proxy in front, or set
// [http.Server].TLSConfig, where that matters; without it the write token can
// be overheard. Content is sent so that a browser runs none of it: with a
// passive type, nosniff, and a Content-Security-Policy that denies everything;
// and pages from elsewhere cannot embed it.
package blobhttp
