//! The questions about iroh's blob store and its collections.

use std::ops::Deref;
use std::str::FromStr;

use iroh_blobs::format::collection::Collection;
use iroh_blobs::protocol::{ChunkRanges, ChunkRangesExt};
use iroh_blobs::store::mem::MemStore;
use iroh_blobs::Hash;
use tokio::runtime::{Builder, Runtime};

use crate::{bounds, Frame, Result};

/// A store in memory, and what runs it.
pub struct Store {
    runtime: Runtime,
    blobs: MemStore,
}

impl Store {
    pub fn new() -> Result<Self> {
        let runtime = Builder::new_current_thread().build()?;
        let blobs = runtime.block_on(async { MemStore::new() });
        Ok(Self { runtime, blobs })
    }

    /// Answers one question. What the store itself refuses is an answer, too.
    pub fn answer(&mut self, words: &[&str], payload: Vec<u8>) -> Result<Frame> {
        let answer = match *words {
            ["reset"] => {
                *self = Self::new()?;
                Ok(Frame::new(&["ok"], Vec::new()))
            }
            ["add"] => self.add(payload),
            ["import", hash, ranges] => self.import(hash, ranges, payload),
            ["export", hash, ranges] => self.export(hash, ranges),
            ["collection", root] => self.collection(root),
            _ => return Err(format!("unknown operation {words:?}").into()),
        };
        Ok(answer.unwrap_or_else(|err| Frame::new(&["failed"], err.to_string().into_bytes())))
    }

    fn add(&self, content: Vec<u8>) -> Result<Frame> {
        let add = async { self.blobs.add_bytes(content).with_tag().await };
        let tag = self.runtime.block_on(add)?;
        Ok(Frame::new(&["ok", &tag.hash.to_hex()], Vec::new()))
    }

    fn import(&self, hash: &str, ranges: &str, response: Vec<u8>) -> Result<Frame> {
        let hash = Hash::from_str(hash)?;
        let ranges = chunk_ranges(&bounds(ranges)?);
        self.runtime
            .block_on(self.blobs.import_bao_bytes(hash, ranges, response))?;
        Ok(Frame::new(&["ok"], Vec::new()))
    }

    fn export(&self, hash: &str, ranges: &str) -> Result<Frame> {
        let hash = Hash::from_str(hash)?;
        let ranges = chunk_ranges(&bounds(ranges)?);
        let export = async { self.blobs.export_bao(hash, ranges).bao_to_vec().await };
        Ok(Frame::new(&["ok"], self.runtime.block_on(export)?))
    }

    /// Loads a collection. The answer has a word `name in hex:link` for each
    /// entry, and then what iroh itself would store: meta blob, hash sequence.
    fn collection(&self, root: &str) -> Result<Frame> {
        let root = Hash::from_str(root)?;
        let load = Collection::load(root, self.blobs.deref());
        let collection = self.runtime.block_on(load)?;
        let entries = collection.iter().map(|(name, link)| {
            let name: String = name.bytes().map(|b| format!("{b:02x}")).collect();
            format!("{name}:{}", link.to_hex())
        });
        let words = std::iter::once("ok".to_string()).chain(entries).collect();
        let payload = collection.to_blobs().collect::<Vec<_>>().concat();
        Ok(Frame { words, payload })
    }
}

fn chunk_ranges(bounds: &[u64]) -> ChunkRanges {
    let mut ranges = ChunkRanges::empty();
    for range in bounds.chunks(2) {
        ranges |= match *range {
            [start, end] => ChunkRanges::chunks(start..end),
            _ => ChunkRanges::chunks(range[0]..),
        };
    }
    ranges
}
