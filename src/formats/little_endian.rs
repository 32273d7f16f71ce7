//! Numbers to bytes in the order of the files that this program writes, whatever the machine.

use std::io::{self, Write};

/// Writes `values` as `encode` says, through a small buffer instead of a second copy of the array.
pub(super) fn write<const N: usize>(
    out: &mut dyn Write,
    values: &[f32],
    encode: impl Fn(f32) -> [u8; N],
) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(N * values.len().min(1 << 16));
    for chunk in values.chunks(1 << 16) {
        bytes.clear();
        bytes.extend(chunk.iter().flat_map(|&v| encode(v)));
        out.write_all(&bytes)?;
    }
    Ok(())
}
