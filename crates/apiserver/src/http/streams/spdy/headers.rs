//! Header blocks: pairs of name and value, through one zlib stream per direction
//! that begins with a dictionary known to both sides (section 2.6.10.1).
//!
//! Ours hold nothing, so that they need no compressor: they are stored blocks.

use miniz_oxide::inflate::{
    TINFLStatus,
    core::{DecompressorOxide, decompress, inflate_flags::TINFL_FLAG_HAS_MORE_INPUT},
};

/// Header blocks are some 100 bytes; a bomb ends here.
const BLOCK_BYTES_MAX: usize = 64 << 10;
/// How far back DEFLATE can refer (RFC 1951).
const WINDOW_BYTES: usize = 32 << 10;

/// The words of the dictionary, each with its length in front.
const WORDS: [&str; 65] = [
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];
/// What follows them.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416\
    417502504505203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad \
    Request401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not \
    Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 \
    Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,\
    application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,\
    deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";
/// Adler-32 of the dictionary, by which a zlib stream names it (RFC 1950).
const DICTIONARY_ID: u32 = 0xE3C6_A7C2;

fn dictionary() -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in WORDS {
        bytes.extend(u32::try_from(word.len()).unwrap_or(0).to_be_bytes());
        bytes.extend(word.as_bytes());
    }
    bytes.extend(TAIL.as_bytes());
    bytes
}

/// The decompressor of one direction.
pub(super) struct Inflater {
    core: Box<DecompressorOxide>,
    window: Box<[u8]>,
    at: usize,
    begun: bool,
}

impl Inflater {
    pub(super) fn new() -> Inflater {
        Inflater {
            core: Box::default(),
            window: vec![0; WINDOW_BYTES].into_boxed_slice(),
            at: 0,
            begun: false,
        }
    }

    /// The next block.
    pub(super) fn inflate(&mut self, block: &[u8]) -> Result<Vec<u8>, String> {
        let mut input = if self.begun { block } else { self.begin(block)? };
        let mut output = Vec::new();
        loop {
            let flags = TINFL_FLAG_HAS_MORE_INPUT;
            let (status, read, written) =
                decompress(&mut self.core, input, &mut self.window, self.at, flags);
            output.extend_from_slice(&self.window[self.at..self.at + written]);
            self.at = (self.at + written) % WINDOW_BYTES;
            input = &input[read..];
            if output.len() > BLOCK_BYTES_MAX {
                return Err(format!("a header block of more than {BLOCK_BYTES_MAX} bytes"));
            }
            match status {
                TINFLStatus::HasMoreOutput => {}
                TINFLStatus::NeedsMoreInput => return Ok(output),
                other => return Err(format!("a header block that is no zlib stream: {other:?}")),
            }
        }
    }

    /// The head of the zlib stream, which names the dictionary.
    fn begin<'a>(&mut self, block: &'a [u8]) -> Result<&'a [u8], String> {
        let odd = || "header blocks that do not begin as a zlib stream with dictionary".to_owned();
        let (head, rest) = block.split_at_checked(6).ok_or_else(odd)?;
        let named = u32::from_be_bytes([head[2], head[3], head[4], head[5]]);
        // Method 8, and the bit that says that a dictionary is named.
        if head[0] & 0x0F != 8 || head[1] & 0x20 == 0 || named != DICTIONARY_ID {
            return Err(odd());
        }
        let dictionary = dictionary();
        self.window[..dictionary.len()].copy_from_slice(&dictionary);
        self.at = dictionary.len();
        self.begun = true;
        Ok(rest)
    }
}

/// Reads a block: a count, then names and values with their lengths in front.
pub(super) fn parse(block: &[u8]) -> Result<Vec<(String, String)>, String> {
    let mut rest = block;
    let count = number(&mut rest)?;
    let mut pairs = Vec::new();
    for _ in 0..count {
        pairs.push((text(&mut rest)?, text(&mut rest)?));
    }
    Ok(pairs)
}

fn number(rest: &mut &[u8]) -> Result<usize, String> {
    let (first, behind) = rest.split_first_chunk().ok_or("a header block breaks off")?;
    *rest = behind;
    usize::try_from(u32::from_be_bytes(*first)).map_err(|error| error.to_string())
}

fn text(rest: &mut &[u8]) -> Result<String, String> {
    let length = number(rest)?;
    let (first, behind) = rest.split_at_checked(length).ok_or("a header block breaks off")?;
    *rest = behind;
    String::from_utf8(first.to_vec()).map_err(|_| "a header that is no text".to_owned())
}

/// A block without headers. `first`: with the head of the zlib stream.
pub(super) fn none(first: bool) -> Vec<u8> {
    let mut block = Vec::new();
    if first {
        block.extend([0x78, 0x01]);
    }
    // A stored block of four bytes, the count 0; an empty one behind it is the
    // flush without which readers wait for more.
    block.extend([0, 4, 0, 0xFB, 0xFF, 0, 0, 0, 0]);
    block.extend([0, 0, 0, 0xFF, 0xFF]);
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_the_one_that_is_named() {
        let (mut a, mut b) = (1_u32, 0_u32);
        for byte in dictionary() {
            a = (a + u32::from(byte)) % 65_521;
            b = (b + a) % 65_521;
        }
        assert_eq!(b << 16 | a, DICTIONARY_ID);
    }

    /// Two blocks as zlib 1.3 writes them with that dictionary, flushed after each.
    const BLOCKS: [&str; 2] = [
        "78f9e3c6a7c202256f703a2b294a4dcc851625aca9a0808614cb45e01c6061606100a4398b20d198094ade8c064805099806000000ffff",
        "c26a18a85c4a24dd2c00000000ffff",
    ];

    fn bytes(hex: &str) -> Vec<u8> {
        let pair = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(pair).collect()
    }

    #[test]
    fn blocks_of_a_client() {
        let mut inflater = Inflater::new();
        for (block, kind) in BLOCKS.iter().zip(["error", "data"]) {
            let pairs = parse(&inflater.inflate(&bytes(block)).unwrap()).unwrap();
            let expected =
                [("streamtype", kind), ("port", "8080"), ("requestid", "0"), ("host", "host")];
            assert_eq!(pairs, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
        }
        assert!(Inflater::new().inflate(&bytes(BLOCKS[1])).is_err());
        assert!(parse(&[0, 0, 0, 1, 0, 0, 0, 9]).is_err());
    }
}
