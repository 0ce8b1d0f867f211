//! Whether a table is loaded whole or in parts, and where it is cut.

use crate::format::reader::CopyBlock;

/// Data of a table is cut only into parts of at least this size.
const SMALLEST_PART: u64 = 8 << 20;
/// What a server needs for a table in parts, over what it needs for the whole one, which goes past the log.
/// Measured: a table of 90 MB in two parts 663 ms of the server's time, whole, by psql, 383.
const PRICE_OF_PARTS: f64 = 1.75;

/// Says where data is cut, as places in `cuts`: a table is loaded in parts only where the other connections
/// would otherwise have nothing to do for so long that the price of parts is worth it.
#[must_use]
pub fn parts(block: &CopyBlock, connections: u64, total: u64) -> Vec<usize> {
    let last = block.cuts.len() - 1;
    let (begin, end) = (block.cuts[0].offset, block.cuts[last].offset);
    let bytes = end - begin;
    let count = connections.min(bytes / SMALLEST_PART).max(1);
    let rest = total.saturating_sub(bytes) as f64;
    let in_parts = (bytes as f64 * PRICE_OF_PARTS + rest) / connections as f64;
    if count == 1 || bytes as f64 <= in_parts {
        return vec![0, last];
    }
    let mut bounds: Vec<usize> = (0..count)
        .map(|part| {
            let wanted = begin + bytes * part / count;
            block.cuts.partition_point(|cut| cut.offset < wanted)
        })
        .collect();
    bounds.push(last);
    bounds.dedup();
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::reader::{Cut, Statement};

    #[test]
    fn a_table_that_the_others_would_wait_for_is_cut_evenly() {
        let cut = |mib: u64| Cut {
            offset: mib << 20,
            rows: mib,
        };
        let block = CopyBlock {
            statement: Statement {
                text: Vec::new(),
                line: 1,
            },
            cuts: (1..=41).map(cut).collect(),
        };
        assert_eq!(parts(&block, 2, 41 << 20), [0, 20, 40]);
        assert_eq!(parts(&block, 4, 60 << 20), [0, 10, 20, 30, 40]);
        for (connections, total) in [(2, 60), (2, 100), (4, 150)] {
            let bounds = parts(&block, connections, total << 20);
            assert_eq!(bounds, [0, 40], "the others have enough to do");
        }
        assert_eq!(parts(&block, 1, 41 << 20), [0, 40]);
        let one_row = CopyBlock {
            cuts: vec![cut(1), cut(41)],
            ..block
        };
        assert_eq!(parts(&one_row, 2, 41 << 20), [0, 1], "a row is never cut");
    }
}
