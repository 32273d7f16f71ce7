//! Voxel-to-millimetre matrices and the nearest canonical orientation.
//!
//! World axes are RAS+: x left→right, y posterior→anterior, z inferior→superior. Matrices take column vectors
//! `(i, j, k, 1)`.

/// A 4 x 4 matrix in row order; the last row is `0 0 0 1`.
pub type Affine = [[f64; 4]; 4];

/// The matrix that leaves every place where it is.
pub const IDENTITY: Affine = [[1., 0., 0., 0.], [0., 1., 0., 0.], [0., 0., 1., 0.], [0., 0., 0., 1.]];

/// `a · b`: first `b`, then `a`.
pub fn multiply(a: &Affine, b: &Affine) -> Affine {
    std::array::from_fn(|r| std::array::from_fn(|c| (0..4).map(|k| a[r][k] * b[k][c]).sum()))
}

/// The mm position of voxel `(i, j, k)`.
pub fn apply(a: &Affine, voxel: [f64; 3]) -> [f64; 3] {
    std::array::from_fn(|r| a[r][0] * voxel[0] + a[r][1] * voxel[1] + a[r][2] * voxel[2] + a[r][3])
}

/// Voxel edge lengths in mm along i, j and k: the norms of the columns.
pub fn spacing(a: &Affine) -> [f64; 3] {
    std::array::from_fn(|c| (0..3).map(|r| a[r][c] * a[r][c]).sum::<f64>().sqrt())
}

/// By how many degrees the edges of a voxel miss right angles: 0 where the matrix turns, mirrors and scales alone.
pub fn shear(a: &Affine) -> f64 {
    let s = spacing(a);
    let cosine = |p: usize, q: usize| (0..3).map(|r| a[r][p] * a[r][q]).sum::<f64>() / (s[p] * s[q]);
    let most = [(0, 1), (0, 2), (1, 2)].map(|(p, q)| cosine(p, q).abs()).into_iter().fold(0.0, f64::max);
    most.min(1.0).asin().to_degrees()
}

/// The volume of a voxel, below 0 where the matrix mirrors.
pub fn determinant(a: &Affine) -> f64 {
    a[0][0] * (a[1][1] * a[2][2] - a[1][2] * a[2][1]) - a[0][1] * (a[1][0] * a[2][2] - a[1][2] * a[2][0])
        + a[0][2] * (a[1][0] * a[2][1] - a[1][1] * a[2][0])
}

/// Whether the matrix maps a voxel to a box with a volume: all finite, no zero and no parallel axes.
pub fn is_usable(a: &Affine) -> bool {
    let finite = a.iter().flatten().all(|v| v.is_finite());
    let s = spacing(a);
    // Relative to the edge lengths, so that micrometre voxels are not taken for degenerate ones.
    finite && s.iter().all(|&v| v > 1e-9) && determinant(a).abs() > 1e-3 * s[0] * s[1] * s[2]
}

/// How a file's axes lie nearest to the canonical ones: canonical axis `a` (0 = x, 1 = y, 2 = z) runs along the file's
/// axis `source[a]`, backwards where `flip[a]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orientation {
    /// The file's axis (0 = i, 1 = j, 2 = k) that each canonical axis (x, y, z) runs along.
    pub source: [usize; 3],
    /// Which canonical axes run against the file's.
    pub flip: [bool; 3],
}

impl Orientation {
    /// Axes as the file has them: z, y, x are its k, j, i.
    pub const STORED: Self = Self { source: [0, 1, 2], flip: [false; 3] };

    /// The assignment of file axes to world axes with the largest sum of direction cosines.
    pub fn nearest(affine: &Affine) -> Self {
        const PERMUTATIONS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        let s = spacing(affine);
        let cosine = |world: usize, axis: usize| affine[world][axis] / s[axis];
        let mut best = (f64::NEG_INFINITY, PERMUTATIONS[0]);
        for p in PERMUTATIONS {
            let sum: f64 = (0..3).map(|world| cosine(world, p[world]).abs()).sum();
            // A strict margin: at 45° two assignments tie, and rounding must not decide between them.
            if sum > best.0 + 1e-9 {
                best = (sum, p);
            }
        }
        let source = best.1;
        Self { source, flip: std::array::from_fn(|world| cosine(world, source[world]) < 0.0) }
    }

    /// The shape (z, y, x) of the canonical volume of a file with `dims` (i, j, k) voxels.
    pub fn canonical_shape(&self, dims: [usize; 3]) -> [usize; 3] {
        [dims[self.source[2]], dims[self.source[1]], dims[self.source[0]]]
    }

    /// The matrix of the canonical grid: canonical voxel (x, y, z) → mm.
    pub fn canonical_affine(&self, affine: &Affine, dims: [usize; 3]) -> Affine {
        let mut to_file = [[0.0; 4]; 4];
        to_file[3][3] = 1.0;
        for a in 0..3 {
            let axis = self.source[a];
            to_file[axis][a] = if self.flip[a] { -1.0 } else { 1.0 };
            to_file[axis][3] = if self.flip[a] { (dims[axis] - 1) as f64 } else { 0.0 };
        }
        multiply(affine, &to_file)
    }

    /// File order (i fastest, `dims` voxels) → canonical C order (z, y, x).
    pub fn to_canonical<T: Copy>(&self, file: &[T], dims: [usize; 3]) -> Vec<T> {
        let mut out = Vec::with_capacity(file.len());
        self.visit(dims, |index| out.push(file[index]));
        out
    }

    /// Canonical C order (z, y, x) → file order (i fastest, `dims` voxels).
    pub fn to_file<T: Copy + Default>(&self, canonical: &[T], dims: [usize; 3]) -> Vec<T> {
        let mut out = vec![T::default(); canonical.len()];
        let mut values = canonical.iter();
        self.visit(dims, |index| out[index] = values.next().copied().unwrap_or_default());
        out
    }

    /// Calls `f` with the file index of each voxel, in canonical order.
    fn visit(&self, dims: [usize; 3], mut f: impl FnMut(usize)) {
        let stride = [1, dims[0] as isize, (dims[0] * dims[1]) as isize];
        // The file's step for one voxel along z, y and x. What runs backwards starts at the end.
        let step = [2, 1, 0].map(|a| stride[self.source[a]] * if self.flip[a] { -1 } else { 1 });
        let flipped = (0..3).filter(|&a| self.flip[a]).map(|a| self.source[a]);
        let start: isize = flipped.map(|axis| (dims[axis] as isize - 1) * stride[axis]).sum();
        let [nz, ny, nx] = self.canonical_shape(dims).map(|n| n as isize);
        for z in 0..nz {
            for y in 0..ny {
                let row = start + z * step[0] + y * step[1];
                for x in 0..nx {
                    f((row + x * step[2]) as usize);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rotation about z by `degrees`, with voxels of 1 x 2 x 3 mm.
    fn oblique(degrees: f64) -> Affine {
        let (s, c) = degrees.to_radians().sin_cos();
        [[c, -2. * s, 0., 5.], [s, 2. * c, 0., -7.], [0., 0., 3., 11.], [0., 0., 0., 1.]]
    }

    #[test]
    fn spacing_is_that_of_the_columns() {
        let s = spacing(&oblique(20.0));
        for (got, want) in s.iter().zip([1.0, 2.0, 3.0]) {
            assert!((got - want).abs() < 1e-12, "{s:?}");
        }
    }

    #[test]
    fn shear_is_what_a_tilted_gantry_does() {
        assert!(shear(&oblique(20.0)) < 1e-9);
        let mut tilted = oblique(0.0);
        tilted[1][2] = 3.0 * 25f64.to_radians().tan();
        assert!((shear(&tilted) - 25.0).abs() < 1e-9, "{}", shear(&tilted));
        let quarter = [[0., -1., 0., 0.], [1., 0., 0., 0.], [0., 0., -1., 0.], [0., 0., 0., 1.]];
        assert!((shear(&multiply(&quarter, &tilted)) - 25.0).abs() < 1e-9);
    }

    #[test]
    fn nearest_axes_of_rotated_grids() {
        let o = Orientation::nearest(&oblique(20.0));
        assert_eq!(o, Orientation { source: [0, 1, 2], flip: [false; 3] });
        let o = Orientation::nearest(&oblique(100.0));
        assert_eq!(o, Orientation { source: [1, 0, 2], flip: [true, false, false] });
    }

    #[test]
    fn canonical_and_file_order_are_inverse_and_the_matrix_agrees() {
        let dims = [2, 3, 4];
        // File axes: i runs to the front, j downwards, k to the left.
        let affine = [[0., 0., -3., 1.], [1., 0., 0., 2.], [0., -2., 0., 3.], [0., 0., 0., 1.]];
        let o = Orientation::nearest(&affine);
        let file: Vec<f32> = (0..24).map(|v| v as f32).collect();
        let canonical = o.to_canonical(&file, dims);
        assert_eq!(o.to_file(&canonical, dims), file);
        let shape = o.canonical_shape(dims);
        assert_eq!(shape, [3, 2, 4]);
        let grid = o.canonical_affine(&affine, dims);
        for (n, &value) in canonical.iter().enumerate() {
            let (z, y, x) = (n / 8, n / 4 % 2, n % 4);
            let v = value as usize;
            let from_file = apply(&affine, [(v % 2) as f64, (v / 2 % 3) as f64, (v / 6) as f64]);
            let from_grid = apply(&grid, [x as f64, y as f64, z as f64]);
            assert_eq!(from_file, from_grid, "voxel {z} {y} {x}");
        }
    }

    #[test]
    fn degenerate_matrices_are_refused() {
        assert!(is_usable(&oblique(45.0)));
        assert!(!is_usable(&[[0.0; 4]; 4]));
        let mut parallel = oblique(0.0);
        parallel[0][1] = 1.0;
        parallel[1][1] = 0.0;
        assert!(!is_usable(&parallel));
        let mut nan = oblique(0.0);
        nan[0][3] = f64::NAN;
        assert!(!is_usable(&nan));
    }
}
