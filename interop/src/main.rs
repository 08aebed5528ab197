//! Answers, on standard input and output, what iroh's own crates make of a
//! blob. The tests of Cairn ask, one process for many questions.
//!
//! A question and an answer have the same frame: a line of words parted by one
//! space each, of which the last is the number of bytes that follow the line.
//! The first word of a question is the operation; that of an answer is `ok` or
//! what went wrong. Chunk ranges are the bounds in ascending order, starts and
//! ends in turn, joined by commas; an odd number of them means that the last
//! range has no end, and `-` is no range at all. That is how bao-tree itself
//! keeps them.
//!
//! A question that makes no sense ends the process.

use std::error::Error;
use std::io::{self, BufRead, BufWriter, Write};

use bao_tree::io::outboard::{PreOrderMemOutboard, PreOrderOutboard};
use bao_tree::io::sync::{encode_ranges_validated, DecodeResponseIter};
use bao_tree::io::{BaoContentItem, DecodeError};
use bao_tree::{blake3, BaoTree, BlockSize, ChunkNum, ChunkRanges};

#[cfg(feature = "iroh")]
mod store;

/// What iroh uses: groups of 16 chunks.
const BLOCK_SIZE: BlockSize = BlockSize::from_chunk_log(4);

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A line of words, and bytes.
struct Frame {
    words: Vec<String>,
    payload: Vec<u8>,
}

impl Frame {
    fn new(words: &[&str], payload: Vec<u8>) -> Self {
        let words = words.iter().map(|w| w.to_string()).collect();
        Self { words, payload }
    }

    /// Reads the next frame, or nothing at the end of the input.
    fn read(input: &mut impl BufRead) -> Result<Option<Self>> {
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words: Vec<_> = line.trim_end().split(' ').map(String::from).collect();
        let len = words.pop().ok_or("empty line")?.parse()?;
        let mut payload = vec![0; len];
        input.read_exact(&mut payload)?;
        Ok(Some(Self { words, payload }))
    }

    fn write(&self, output: &mut impl Write) -> io::Result<()> {
        writeln!(output, "{} {}", self.words.join(" "), self.payload.len())?;
        output.write_all(&self.payload)?;
        output.flush()
    }
}

fn main() -> Result<()> {
    let mut input = io::stdin().lock();
    let mut output = BufWriter::new(io::stdout().lock());
    let mut blob = Blob::new(Vec::new());
    #[cfg(feature = "iroh")]
    let mut store = store::Store::new()?;
    while let Some(question) = Frame::read(&mut input)? {
        let words: Vec<_> = question.words.iter().map(String::as_str).collect();
        let payload = question.payload;
        let answer = match words[..] {
            ["put"] => {
                blob = Blob::new(payload);
                Frame::new(&["ok", &blob.outboard.root.to_hex()], Vec::new())
            }
            ["encode", ranges] => blob.encode(&bounds(ranges)?)?,
            ["outboard"] => Frame::new(&["ok"], blob.outboard.clone().into_inner_with_prefix()),
            ["bare-outboard"] => Frame::new(&["ok"], blob.outboard.data.clone()),
            ["check-outboard"] => blob.check(&payload)?,
            ["decode", root, ranges] => decode(root, &bounds(ranges)?, &payload)?,
            #[cfg(feature = "iroh")]
            ["iroh", ref words @ ..] => store.answer(words, payload)?,
            _ => return Err(format!("unknown operation {words:?}").into()),
        };
        answer.write(&mut output)?;
    }
    Ok(())
}

/// The content that later questions are about.
struct Blob {
    content: Vec<u8>,
    outboard: PreOrderMemOutboard,
}

impl Blob {
    fn new(content: Vec<u8>) -> Self {
        let outboard = PreOrderMemOutboard::create(&content, BLOCK_SIZE);
        Self { content, outboard }
    }

    /// Makes the response to a request, as iroh's providers send it: bao-tree
    /// leaves the size before it, and requests of nothing, to its caller.
    fn encode(&self, bounds: &[u64]) -> Result<Frame> {
        let mut response = Vec::new();
        if !bounds.is_empty() {
            response.extend_from_slice(&(self.content.len() as u64).to_le_bytes());
            let ranges = chunk_ranges(bounds)?;
            encode_ranges_validated(&self.content[..], &self.outboard, &ranges, &mut response)?;
        }
        Ok(Frame::new(&["ok"], response))
    }

    /// Verifies the content with an outboard that somebody else has made.
    fn check(&self, obao4: &[u8]) -> Result<Frame> {
        let Some((size, pairs)) = obao4.split_first_chunk::<8>() else {
            return Ok(Frame::new(&["truncated"], Vec::new()));
        };
        let tree = BaoTree::new(u64::from_le_bytes(*size), BLOCK_SIZE);
        if tree.size() != self.content.len() as u64 || tree.outboard_size() != pairs.len() as u64 {
            return Ok(Frame::new(&["size"], Vec::new()));
        }
        let root = self.outboard.root;
        let data = pairs;
        let outboard = PreOrderOutboard { root, tree, data };
        let all = ChunkRanges::all();
        let verdict = encode_ranges_validated(&self.content[..], outboard, &all, io::sink());
        Ok(match verdict {
            Ok(()) => Frame::new(&["ok"], Vec::new()),
            Err(err) => Frame::new(&["mismatch"], err.to_string().into_bytes()),
        })
    }
}

/// Decodes a response as far as it verifies. The answer tells the number of
/// pairs, each leaf as `offset+length`, and the number of bytes left over.
fn decode(root: &str, bounds: &[u64], mut response: &[u8]) -> Result<Frame> {
    let mut out = Decoded::default();
    let end = out.read(root, bounds, &mut response)?;
    let leaves = match out.leaves.is_empty() {
        true => "-".to_string(),
        false => out.leaves.join(","),
    };
    let words = [
        end,
        &out.pairs.to_string(),
        &leaves,
        &response.len().to_string(),
    ];
    Ok(Frame::new(&words, out.data))
}

/// What has been verified of a response.
#[derive(Default)]
struct Decoded {
    pairs: u64,
    leaves: Vec<String>,
    data: Vec<u8>,
}

impl Decoded {
    /// Takes what the response is made of, and returns how it ended.
    fn read(&mut self, root: &str, bounds: &[u64], response: &mut &[u8]) -> Result<&'static str> {
        if bounds.is_empty() {
            return Ok("ok");
        }
        let Some((size, body)) = response.split_first_chunk::<8>() else {
            return Ok("truncated");
        };
        *response = body;
        let tree = BaoTree::new(u64::from_le_bytes(*size), BLOCK_SIZE);
        let ranges = chunk_ranges(bounds)?;
        let root = blake3::Hash::from_hex(root)?;
        for item in DecodeResponseIter::new(root, tree, response, &ranges) {
            match item {
                Ok(BaoContentItem::Parent(_)) => self.pairs += 1,
                Ok(BaoContentItem::Leaf(leaf)) => {
                    self.leaves
                        .push(format!("{}+{}", leaf.offset, leaf.data.len()));
                    self.data.extend_from_slice(&leaf.data);
                }
                Err(DecodeError::ParentNotFound(_) | DecodeError::LeafNotFound(_)) => {
                    return Ok("truncated")
                }
                Err(DecodeError::ParentHashMismatch(_) | DecodeError::LeafHashMismatch(_)) => {
                    return Ok("mismatch")
                }
                Err(err) => return Err(err.into()),
            }
        }
        Ok("ok")
    }
}

fn bounds(text: &str) -> Result<Vec<u64>> {
    if text == "-" {
        return Ok(Vec::new());
    }
    text.split(',').map(|bound| Ok(bound.parse()?)).collect()
}

fn chunk_ranges(bounds: &[u64]) -> Result<ChunkRanges> {
    let bounds = bounds.iter().copied().map(ChunkNum).collect();
    Ok(ChunkRanges::new(bounds).ok_or("bounds do not ascend")?)
}
