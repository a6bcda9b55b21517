//! The wire format: a message is a sequence of (field number, payload).

use super::DecodeError;

/// Longest encoding of a 64-bit varint.
const MAX_VARINT_BYTES: usize = 10;
/// Largest field number of the format.
const MAX_FIELD_NUMBER: u64 = (1 << 29) - 1;

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LENGTH: u8 = 2;
const FIXED32: u8 = 5;

/// What a field holds, uninterpreted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payload<'b> {
    Varint(u64),
    Bytes(&'b [u8]),
    /// No type of the table is encoded so; only skipped.
    Fixed(u8),
}

impl<'b> Payload<'b> {
    fn wire(self) -> u8 {
        match self {
            Payload::Varint(_) => VARINT,
            Payload::Bytes(_) => LENGTH,
            Payload::Fixed(wire) => wire,
        }
    }

    pub(super) fn bytes(self, field: &'static str) -> Result<&'b [u8], DecodeError> {
        match self {
            Payload::Bytes(bytes) => Ok(bytes),
            other => Err(DecodeError::WrongWireType { wire: other.wire(), field }),
        }
    }

    pub(super) fn varint(self, field: &'static str) -> Result<u64, DecodeError> {
        match self {
            Payload::Varint(number) => Ok(number),
            other => Err(DecodeError::WrongWireType { wire: other.wire(), field }),
        }
    }

    pub(super) fn int64(self, field: &'static str) -> Result<i64, DecodeError> {
        self.varint(field).map(u64::cast_signed)
    }

    /// The low 32 bits, as generated Go code takes them.
    pub(super) fn int32(self, field: &'static str) -> Result<i32, DecodeError> {
        self.varint(field).map(|number| (number as u32).cast_signed())
    }

    pub(super) fn text(self, field: &'static str) -> Result<String, DecodeError> {
        let text = std::str::from_utf8(self.bytes(field)?);
        text.map(str::to_owned).map_err(|_| DecodeError::Text { field, expected: "UTF-8 string" })
    }
}

/// The fields of a message, in the order of the wire. After an error there is no more.
pub(super) struct Reader<'b> {
    rest: &'b [u8],
}

impl<'b> Reader<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Reader { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut number = 0_u64;
        for index in 0..MAX_VARINT_BYTES {
            let (byte, rest) = self.rest.split_first().ok_or(DecodeError::Truncated)?;
            self.rest = rest;
            number |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(DecodeError::Malformed)
    }

    fn take(&mut self, length: u64) -> Result<&'b [u8], DecodeError> {
        let length = usize::try_from(length).map_err(|_| DecodeError::Truncated)?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<(u32, Payload<'b>), DecodeError> {
        let tag = self.varint()?;
        let number = tag >> 3;
        if number == 0 || number > MAX_FIELD_NUMBER {
            return Err(DecodeError::Malformed);
        }
        let payload = match (tag & 7) as u8 {
            VARINT => Payload::Varint(self.varint()?),
            LENGTH => {
                let length = self.varint()?;
                Payload::Bytes(self.take(length)?)
            }
            wire @ FIXED64 => self.take(8).map(|_| Payload::Fixed(wire))?,
            wire @ FIXED32 => self.take(4).map(|_| Payload::Fixed(wire))?,
            // Groups, which no Kubernetes type has, and numbers that mean nothing.
            _ => return Err(DecodeError::Malformed),
        };
        Ok((number as u32, payload))
    }
}

impl<'b> Iterator for Reader<'b> {
    type Item = Result<(u32, Payload<'b>), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        for (bytes, expected) in [
            (&b"\x08\x96\x01"[..], Ok((1, Payload::Varint(150)))),
            (b"\x12\x02hi", Ok((2, Payload::Bytes(b"hi")))),
            (b"\x19abcdefgh", Ok((3, Payload::Fixed(FIXED64)))),
            (b"\x1dabcd", Ok((3, Payload::Fixed(FIXED32)))),
            (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", Ok((1, Payload::Varint(u64::MAX)))),
            (b"\x12\x03hi", Err(DecodeError::Truncated)),
            (b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", Err(DecodeError::Truncated)),
            (b"\x08", Err(DecodeError::Truncated)),
            (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", Err(DecodeError::Malformed)),
            (b"\x00\x00", Err(DecodeError::Malformed)),
            (b"\x0b", Err(DecodeError::Malformed)),
        ] {
            let mut reader = Reader::new(bytes);
            assert_eq!(reader.next(), Some(expected), "{bytes:?}");
            assert_eq!(reader.next(), None);
        }
    }
}
