//! The sliding window: where tiles lie, and how much each of their voxels counts.

/// nnU-Net's width of the importance map, as a fraction of the tile.
pub const SIGMA_SCALE: f64 = 0.125;
/// nnU-Net's largest weight.
pub const PEAK: f64 = 10.0;

/// First voxels of the tiles along each axis: evenly spread from one end to the other, at most `tile * step` apart.
/// Where the image is not larger than the tile there is one tile, at 0.
///
/// # Panics
/// When `step` is not within (0, 1], or a tile has size 0.
pub fn tile_steps(image: [usize; 3], tile: [usize; 3], step: f64) -> [Vec<usize>; 3] {
    assert!(step > 0.0 && step <= 1.0, "a step of {step} tiles");
    assert!(tile.iter().all(|&t| t > 0), "a tile of {tile:?}");
    std::array::from_fn(|a| {
        let room = image[a].saturating_sub(tile[a]);
        let tiles = (room as f64 / (tile[a] as f64 * step)).ceil() as usize + 1;
        // Halves to even, as numpy rounds.
        let distance = if tiles > 1 { room as f64 / (tiles - 1) as f64 } else { 0.0 };
        (0..tiles).map(|i| (distance * i as f64).round_ties_even() as usize).collect()
    })
}

/// The weight of each voxel of a tile (C order): a Gaussian of `sigma_scale * tile` around voxel `tile / 2`, with the
/// largest weight scaled to `peak`. No weight is 0.
pub fn gaussian(tile: [usize; 3], sigma_scale: f64, peak: f64) -> Vec<f32> {
    let axis: [Vec<f64>; 3] = std::array::from_fn(|a| {
        let (centre, sigma) = ((tile[a] / 2) as f64, tile[a] as f64 * sigma_scale);
        // scipy's gaussian_filter ends after 4 sigma.
        let radius = (4.0 * sigma + 0.5).floor();
        let value = |i: usize| {
            let d = i as f64 - centre;
            if d.abs() <= radius { (-0.5 * d * d / (sigma * sigma)).exp() } else { 0.0 }
        };
        (0..tile[a]).map(value).collect()
    });
    let mut map = Vec::with_capacity(tile.iter().product());
    for z in &axis[0] {
        for y in &axis[1] {
            map.extend(axis[2].iter().map(|x| (peak * z * y * x) as f32));
        }
    }
    let smallest = map.iter().copied().filter(|&v| v > 0.0).fold(f32::INFINITY, f32::min);
    map.iter_mut().filter(|v| **v == 0.0).for_each(|v| *v = smallest);
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_nnunet() {
        let along = |image: usize, tile: usize| tile_steps([image; 3], [tile; 3], 0.5)[0].clone();
        assert_eq!(along(110, 64), [0, 23, 46]);
        assert_eq!(along(182, 160), [0, 22]);
        assert_eq!(along(260, 160), [0, 50, 100]);
        assert_eq!(along(400, 160), [0, 80, 160, 240]);
        assert_eq!(along(160, 160), [0]);
        assert_eq!(along(100, 160), [0]);
    }

    #[test]
    fn weights_of_a_160_tile() {
        let map = gaussian([160; 3], SIGMA_SCALE, PEAK);
        let at = |z: usize, y: usize, x: usize| map[(z * 160 + y) * 160 + x] as f64;
        assert_eq!(at(80, 80, 80), 10.0);
        assert!((at(0, 80, 80) - 0.003355).abs() < 1e-6);
        assert!((at(159, 80, 80) - 0.004092).abs() < 1e-6);
        assert!(map.iter().all(|&v| v > 0.0));
    }
}
