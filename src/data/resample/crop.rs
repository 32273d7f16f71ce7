//! Cutting away what surrounds the head: the bounding box of everything that is not exactly 0.

/// Half-open ranges of voxels along the three axes.
pub type Bbox = [[usize; 2]; 3];

/// The shape of a box.
pub fn shape(bbox: &Bbox) -> [usize; 3] {
    bbox.map(|[start, end]| end - start)
}

/// The smallest box around the voxels of `data` (C order) that lie `inside`, or `None` if there are none. Filling the holes of
/// a mask, as nnU-Net does first, would not change it.
///
/// # Panics
/// When `data` does not have `shape`'s number of voxels.
pub fn bbox<T: Copy>(data: &[T], shape: [usize; 3], inside: impl Fn(T) -> bool) -> Option<Bbox> {
    assert_eq!(data.len(), shape.iter().product::<usize>(), "{} voxels for shape {shape:?}", data.len());
    let mut bbox = [[usize::MAX, 0]; 3];
    for (line, row) in data.chunks_exact(shape[2].max(1)).enumerate() {
        let Some(first) = row.iter().position(|&v| inside(v)) else { continue };
        let last = row.iter().rposition(|&v| inside(v)).unwrap_or(first);
        for (range, at) in bbox.iter_mut().zip([[line / shape[1]; 2], [line % shape[1]; 2], [first, last]]) {
            *range = [range[0].min(at[0]), range[1].max(at[1] + 1)];
        }
    }
    (bbox[0][0] != usize::MAX).then_some(bbox)
}

/// The voxels of `bbox`, in C order.
///
/// # Panics
/// When the box does not lie within `shape`.
pub fn crop<T: Copy>(data: &[T], shape: [usize; 3], bbox: &Bbox) -> Vec<T> {
    let [[z0, z1], [y0, y1], [x0, x1]] = *bbox;
    let mut out = Vec::with_capacity((z1 - z0) * (y1 - y0) * (x1 - x0));
    for z in z0..z1 {
        for y in y0..y1 {
            let row = (z * shape[1] + y) * shape[2];
            out.extend_from_slice(&data[row + x0..row + x1]);
        }
    }
    out
}

/// nnU-Net's mask of the head: voxels where any channel differs from 0, with enclosed holes filled.
///
/// # Panics
/// When a channel does not have `shape`'s number of voxels.
pub fn filled_mask(channels: &[&[f32]], shape: [usize; 3]) -> Vec<bool> {
    let voxels = shape.iter().product();
    assert!(channels.iter().all(|c| c.len() == voxels), "channels of other sizes than {shape:?}");
    let empty = |n: usize| channels.iter().all(|c| c[n] == 0.0);
    // Background is what can be reached from the faces of the volume through empty voxels, by shared faces.
    let mut background = vec![false; voxels];
    let mut open = Vec::new();
    let mut reach = |n: usize, open: &mut Vec<usize>| {
        if empty(n) && !background[n] {
            background[n] = true;
            open.push(n);
        }
    };
    let [nz, ny, nx] = shape;
    // Where a voxel lies along each axis, how long that is, and how far its neighbours are.
    let axes = |n: usize| [(n / (ny * nx), nz, ny * nx), (n / nx % ny, ny, nx), (n % nx, nx, 1)];
    for n in 0..voxels {
        if axes(n).iter().any(|&(at, size, _)| at == 0 || at + 1 == size) {
            reach(n, &mut open);
        }
    }
    while let Some(n) = open.pop() {
        for (at, size, stride) in axes(n) {
            if at > 0 {
                reach(n - stride, &mut open);
            }
            if at + 1 < size {
                reach(n + stride, &mut open);
            }
        }
    }
    background.into_iter().map(|b| !b).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn box_around_two_voxels() {
        let shape = [4, 5, 6];
        let mut data = vec![0.0; 120];
        assert_eq!(bbox(&data, shape, |v| v != 0.0), None);
        data[(5 + 2) * 6 + 3] = -1.0;
        data[(2 * 5 + 1) * 6 + 5] = 2.0;
        let bbox = bbox(&data, shape, |v| v != 0.0).unwrap();
        assert_eq!(bbox, [[1, 3], [1, 3], [3, 6]]);
        let cropped = crop(&data, shape, &bbox);
        assert_eq!(cropped, [0., 0., 0., -1., 0., 0., 0., 0., 2., 0., 0., 0.]);
    }

    #[test]
    fn holes_are_filled_and_bays_are_not() {
        let shape = [5, 5, 5];
        // A shell of ones from 1 to 3 with an empty centre.
        let mut data: Vec<f32> =
            (0..125).map(|n| [n / 25, n / 5 % 5, n % 5].iter().all(|c| (1..4).contains(c)) as u8 as f32).collect();
        data[62] = 0.0;
        let mask = filled_mask(&[&data], shape);
        assert!(mask[62]);
        assert_eq!(mask.iter().filter(|&&m| m).count(), 27);
        data[37] = 0.0; // opens the shell from above
        let mask = filled_mask(&[&data], shape);
        assert!(!mask[62]);
        // A second channel closes it again.
        let mut second = vec![0.0; 125];
        second[37] = 5.0;
        assert!(filled_mask(&[&data, &second], shape)[62]);
    }
}
