//! Cutting away what surrounds the head: the bounding box of everything that is not exactly 0.

/// Half-open ranges of voxels along the three axes.
pub type Bbox = [[usize; 2]; 3];

/// The shape of a box.
pub fn shape(bbox: &Bbox) -> [usize; 3] {
    bbox.map(|[start, end]| end - start)
}

/// The smallest box around the voxels of `data` (C order) that differ from 0, or `None` if there are none. Filling the
/// holes, as nnU-Net does first, would not change it.
///
/// # Panics
/// When `data` does not have `shape`'s number of voxels.
pub fn nonzero_bbox(data: &[f32], shape: [usize; 3]) -> Option<Bbox> {
    bbox_where(data, shape, |v| v != 0.0)
}

fn bbox_where<T: Copy>(data: &[T], shape: [usize; 3], inside: impl Fn(T) -> bool) -> Option<Bbox> {
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
    let on_face =
        |z: usize, y: usize, x: usize| z == 0 || y == 0 || x == 0 || z + 1 == nz || y + 1 == ny || x + 1 == nx;
    for z in 0..nz {
        for y in 0..ny {
            for x in 0..nx {
                if on_face(z, y, x) {
                    reach((z * ny + y) * nx + x, &mut open);
                }
            }
        }
    }
    while let Some(n) = open.pop() {
        let (z, y, x) = (n / (ny * nx), n / nx % ny, n % nx);
        for (at, size, stride) in [(z, nz, ny * nx), (y, ny, nx), (x, nx, 1)] {
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

/// The smallest box around the true voxels of a mask.
///
/// # Panics
/// When `mask` does not have `shape`'s number of voxels.
pub fn mask_bbox(mask: &[bool], shape: [usize; 3]) -> Option<Bbox> {
    bbox_where(mask, shape, |v| v)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn box_around_two_voxels() {
        let shape = [4, 5, 6];
        let mut data = vec![0.0; 120];
        assert_eq!(nonzero_bbox(&data, shape), None);
        data[(5 + 2) * 6 + 3] = -1.0;
        data[(2 * 5 + 1) * 6 + 5] = 2.0;
        let bbox = nonzero_bbox(&data, shape).unwrap();
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
