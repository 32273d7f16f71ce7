//! The distortions of Models Genesis on the device: voxels shuffled within windows, a curve of intensities, painting with noise.
//! The host uploads what was sampled; [`plain`] has the same on the CPU. Nothing here has a gradient.

mod check;
pub mod plain;

pub use check::check;
pub(super) use check::{PATCH, deviation, window};

use super::prelude::*;
use crate::compute::graph::Flag;

/// A box of voxels (z, y, x).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First voxel (z, y, x).
    pub corner: [usize; 3],
    /// Voxels along (z, y, x).
    pub size: [usize; 3],
}

/// Points of a function, x ascending: linear between them, constant beyond.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Intensities before.
    pub x: Vec<f64>,
    /// Intensities after.
    pub y: Vec<f64>,
}

/// Which voxels become noise from [0, 1).
#[derive(Clone, Debug, PartialEq)]
pub struct Paint {
    /// The boxes, of which later ones cover earlier ones.
    pub boxes: Vec<Window>,
    /// Everything but the boxes, rather than the boxes.
    pub outside: bool,
}

/// What happens to one patch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// Of the permutations within windows, and of the noise.
    pub seed: u64,
    /// Their voxels are shuffled, each window's within it; where windows overlap, the last one counts.
    pub windows: Vec<Window>,
    /// The change of intensities, if there is one.
    pub curve: Option<Curve>,
    /// What is painted over, if anything is.
    pub paint: Option<Paint>,
}

/// What may happen to a patch (z, y, x) of one channel, without its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Distortion {
    /// Voxels (z, y, x) of a patch.
    pub patch: [usize; 3],
    /// The most windows, and points of the curve.
    pub windows: usize,
    /// Points of the curve at most.
    pub points: usize,
}

/// Boxes that can be painted.
pub const MAX_BOXES: usize = 8;

/// A distortion in a graph: the distorted image (z, y, x), and where its numbers are uploaded.
#[derive(Clone, Copy, Debug)]
pub struct Distorted {
    /// The distorted image (z, y, x).
    pub image: TensorId,
    distortion: Distortion,
    numbers: Upload,
    windows: Upload,
    curve: Upload,
    shuffled: Flag,
}

shader_struct! {
    /// The WGSL struct `Box`.
    #[derive(Default)]
    pub(super) struct BoxNumbers is Box of ["distort/transform", "distort/owners", "distort/clear", "fuse/fuse"] {
        pub corner: [u32; 3],
        pub class_index: u32,
        pub size: [u32; 3],
        pub pad: u32,
    }
}

shader_struct! {
    /// The WGSL struct `Distortion`.
    #[derive(Default)]
    struct Numbers is Distortion of ["distort/transform", "distort/owners", "distort/clear"] {
        seed: [u32; 2],
        windows: u32,
        points: u32,
        paint: u32,
        boxes: u32,
        zero: u32,
        pad: u32,
        boxed: [BoxNumbers; MAX_BOXES],
    }
}

shader_struct! {
    pub(super) struct Params is Params of ["distort/transform", "distort/owners", "distort/clear", "fuse/fuse"] {
        pub dims: [u32; 3],
        pub pad: u32,
    }
}

impl From<&Window> for BoxNumbers {
    fn from(w: &Window) -> Self {
        Self { corner: w.corner.map(|n| n as u32), size: w.size.map(|n| n as u32), ..Default::default() }
    }
}

struct Distort {
    distortion: Distortion,
    shuffled: Flag,
}

impl Graph {
    /// Adds the distortion of `image`, an image (z, y, x) of single floats.
    pub fn distort(&mut self, distortion: Distortion, image: TensorId) -> Distorted {
        let shuffled = self.flag();
        let numbers = self.input(std::mem::size_of::<Numbers>() as u64);
        let windows = self.input((distortion.windows.max(1) * std::mem::size_of::<BoxNumbers>()) as u64);
        let curve = self.input(8 * distortion.points.max(1) as u64);
        let bytes = 4 * product(distortion.patch) as u64;
        let (owners, distorted) = (self.scratch(bytes), self.scratch(bytes));
        let inputs = [image, numbers.tensor(), windows.tensor(), curve.tensor()];
        self.push(Distort { distortion, shuffled }, &inputs, &[distorted, owners]);
        Distorted { image: distorted, distortion, numbers, windows, curve, shuffled }
    }
}

impl Distorted {
    /// Uploads what is to happen in the next run.
    ///
    /// # Panics
    /// When there are more windows, points or boxes than there may be, or a window leaves the patch.
    pub fn upload(&self, session: &mut Session, change: &Change) {
        let d = &self.distortion;
        let (boxes, points) =
            (change.paint.iter().flat_map(|p| &p.boxes), change.curve.as_ref().map_or(0, |c| c.x.len()));
        assert!(change.windows.len() <= d.windows && points <= d.points, "more windows or points than planned");
        let inside = |w: &Window| (0..3).all(|a| w.corner[a] + w.size[a] <= d.patch[a]);
        assert!(change.windows.iter().chain(boxes.clone()).all(inside), "a window leaves the patch");
        let mut numbers = Numbers {
            seed: [change.seed as u32, (change.seed >> 32) as u32],
            windows: change.windows.len() as u32,
            points: points as u32,
            paint: change.paint.as_ref().map_or(0, |p| 1 + u32::from(p.outside)),
            ..Default::default()
        };
        for window in boxes {
            assert!((numbers.boxes as usize) < MAX_BOXES, "more boxes than a patch can have");
            numbers.boxed[numbers.boxes as usize] = window.into();
            numbers.boxes += 1;
        }
        session.set_input(self.numbers, bytemuck::bytes_of(&numbers));
        session.set_flag(self.shuffled, !change.windows.is_empty());
        if !change.windows.is_empty() {
            let windows: Vec<BoxNumbers> = change.windows.iter().map(Into::into).collect();
            session.set_input(self.windows, bytemuck::cast_slice(&windows));
        }
        if let Some(curve) = &change.curve {
            let points: Vec<f32> = curve.x.iter().zip(&curve.y).flat_map(|(&x, &y)| [x as f32, y as f32]).collect();
            session.set_input(self.curve, bytemuck::cast_slice(&points));
        }
    }
}

impl Op for Distort {
    fn name(&self) -> &'static str {
        "distort"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let [image, numbers, windows, curve] = [0, 1, 2, 3].map(|k| r.slice(node.inputs[k]));
        let [distorted, owners] = [0, 1].map(|k| r.slice(node.outputs[k]));
        let voxels = product(self.distortion.patch);
        let params = Params { dims: self.distortion.patch.map(|n| n as u32), pad: 0 };
        let all = r.when(self.shuffled, voxels, 64);
        r.dispatch(Kernel::new("distort/clear"), &params, &[numbers, owners], all, 0.0, 0.0);
        let each = r.when(self.shuffled, self.distortion.windows, 1);
        r.dispatch(Kernel::new("distort/owners"), &params, &[numbers, windows, owners], each, 0.0, 0.0);
        let bindings = [numbers, image, owners, windows, curve, distorted];
        let workgroups = Workgroups::folded(voxels, 64, 1);
        r.dispatch(Kernel::new("distort/transform"), &params, &bindings, workgroups, 0.0, 8.0 * voxels as f64);
    }
}
