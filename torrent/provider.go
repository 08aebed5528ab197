package torrent

import (
	"github.com/anacrolix/missinggo/v2/resource"
	"github.com/anacrolix/torrent/storage"
	"github.com/cairnstore/cairn"
)

// A Provider is a [cairn.Provider] for [storage.NewResourcePieces], which keeps
// each block of a piece as a resource of its own. A [Storage] does less for the
// same: use a Provider for what asks for resources.
type Provider struct{ *cairn.Provider }

var (
	_ storage.PieceProvider          = Provider{}
	_ storage.ConsecutiveChunkReader = Provider{}
	_ storage.MovePrefixer           = Provider{}
	_ storage.PrefixDeleter          = Provider{}
	_ resource.Instance              = (*cairn.Instance)(nil)
	_ resource.DirInstance           = (*cairn.Instance)(nil)
	_ storage.SizedPutter            = (*cairn.Instance)(nil)
)

// NewInstance implements [resource.Provider] by
// [cairn.Provider.NewInstance].
func (p Provider) NewInstance(key string) (resource.Instance, error) {
	instance, err := p.Provider.NewInstance(key)
	if err != nil {
		return nil, err // not instance, which would be one that is not nil
	}
	return instance, nil
}
