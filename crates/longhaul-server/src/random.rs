//! Random bytes from the system's source, drawn in blocks: every start needs a few, and asking the
//! system each time is a system call each time.

use std::cell::RefCell;

use longhaul_core::{Error, Reason};

/// Bytes drawn at once, on each thread.
const BLOCK_BYTES: usize = 1024;

thread_local! {
    static BLOCK: RefCell<Block> = const { RefCell::new(Block { bytes: [0; BLOCK_BYTES], left: 0 }) };
}

/// Drawn bytes; the first `left` have not been given out.
struct Block {
    bytes: [u8; BLOCK_BYTES],
    left: usize,
}

/// Fresh random bytes, good for secrets; none is ever given out twice. At most 1 KiB at a time.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], Error> {
    const { assert!(N <= BLOCK_BYTES, "more than a block") };
    BLOCK.with_borrow_mut(|block| {
        if block.left < N {
            getrandom::fill(&mut block.bytes).map_err(|error| {
                Error::new(Reason::Internal, "no random number could be drawn")
                    .caused_by(error.to_string())
            })?;
            block.left = BLOCK_BYTES;
        }
        block.left -= N;
        let mut given = [0; N];
        let taken = &mut block.bytes[block.left..block.left + N];
        given.copy_from_slice(taken);
        // What was given out must not be found here later.
        taken.fill(0);
        Ok(given)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_bytes_are_given_out_twice_across_blocks_and_threads() {
        let draw = || (0..500).map(|_| bytes::<18>().unwrap()).collect::<Vec<_>>();
        let other = std::thread::spawn(draw);
        let mut all: HashSet<[u8; 18]> = draw().into_iter().collect();
        all.extend(other.join().unwrap());
        assert_eq!(all.len(), 1000);
        assert!(!all.contains(&[0; 18]));
    }
}
