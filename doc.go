// Package cairn keeps the pieces of a torrent or p2p client in one SQLite
// file.
package cairn
