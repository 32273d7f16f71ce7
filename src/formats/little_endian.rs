//! Numbers to bytes in the order of the files that this program writes, whatever the machine.

use std::io::{self, Write};

/// Writes `values` through a small buffer instead of a second copy of the array.
pub(super) fn write(out: &mut dyn Write, values: &[f32]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(size_of::<f32>() * values.len().min(1 << 16));
    for chunk in values.chunks(1 << 16) {
        bytes.clear();
        bytes.extend(chunk.iter().flat_map(|v| v.to_le_bytes()));
        out.write_all(&bytes)?;
    }
    Ok(())
}
