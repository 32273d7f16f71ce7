//! Mirroring a patch in place.

/// Reverses `data` (C order, `shape`) along each axis where `axes` is true.
///
/// # Panics
/// When `data` does not have `shape`'s number of voxels.
pub fn mirror<T>(data: &mut [T], shape: [usize; 3], axes: [bool; 3]) {
    let [nz, ny, nx] = shape;
    assert_eq!(data.len(), nz * ny * nx, "{} voxels for shape {shape:?}", data.len());
    if data.is_empty() {
        return;
    }
    if axes[2] {
        data.chunks_exact_mut(nx).for_each(<[T]>::reverse);
    }
    if axes[1] {
        data.chunks_exact_mut(ny * nx).for_each(|plane| swap_rows(plane, nx));
    }
    if axes[0] {
        swap_rows(data, ny * nx);
    }
}

/// Reverses the order of rows of `length` values.
fn swap_rows<T>(data: &mut [T], length: usize) {
    let rows = data.len() / length;
    let (front, back) = data.split_at_mut(rows.div_ceil(2) * length);
    for (a, b) in front.chunks_exact_mut(length).zip(back.chunks_exact_mut(length).rev()) {
        a.swap_with_slice(b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_axis_and_back() {
        for shape in [[2, 3, 4], [3, 2, 5], [1, 1, 1]] {
            let n: usize = shape.iter().product();
            let original: Vec<f32> = (0..n).map(|v| v as f32).collect();
            for bits in 0..8 {
                let axes = [bits & 4 > 0, bits & 2 > 0, bits & 1 > 0];
                let mut data = original.clone();
                mirror(&mut data, shape, axes);
                for (at, &got) in data.iter().enumerate() {
                    let index = [at / (shape[1] * shape[2]), at / shape[2] % shape[1], at % shape[2]];
                    let from: [usize; 3] =
                        std::array::from_fn(|a| if axes[a] { shape[a] - 1 - index[a] } else { index[a] });
                    assert_eq!(got, ((from[0] * shape[1] + from[1]) * shape[2] + from[2]) as f32, "{axes:?}");
                }
                mirror(&mut data, shape, axes);
                assert_eq!(data, original);
            }
        }
    }
}
