//! Check sums over the parts of a row, the same in every back end.

/// A CRC-32 over parts, each with its length, so that no two rows read alike.
#[derive(Default)]
pub(crate) struct CheckSum(crc32fast::Hasher);

impl CheckSum {
    pub fn number(&mut self, number: i64) {
        self.0.update(&number.to_le_bytes());
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(i64::try_from(bytes.len()).unwrap_or(i64::MAX));
        self.0.update(bytes);
    }

    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    pub fn end(self) -> u32 {
        self.0.finalize()
    }
}
