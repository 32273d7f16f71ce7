//! Volume Fusion on the device: two images become one, weighted box by box, with the class of each voxel. The host uploads the
//! boxes; [`plain`] is the same on the CPU. Nothing here has a gradient.

use super::distort::{BoxNumbers, PATCH, Params, Window, deviation, window};
use super::prelude::*;
use crate::base::{Purpose, rng};

/// A box of voxels (z, y, x) and its class: the foreground's weight is class / (classes - 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FusionBox {
    /// First voxel (z, y, x).
    pub corner: [usize; 3],
    /// Voxels along (z, y, x).
    pub size: [usize; 3],
    /// How much of the foreground it shows: all of it is the last class.
    pub class: u32,
}

/// What becomes of two patches (z, y, x), without its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fusion {
    /// Voxels (z, y, x) of a patch.
    pub patch: [usize; 3],
    /// Number of classes.
    pub classes: usize,
    /// The most boxes.
    pub boxes: usize,
}

/// A fusion in a graph: the fused image and the map of classes, both (z, y, x), and where the boxes are uploaded.
#[derive(Clone, Copy, Debug)]
pub struct Fused {
    /// The fused image (z, y, x).
    pub image: TensorId,
    /// The class of each voxel (z, y, x), as a float.
    pub classes: TensorId,
    fusion: Fusion,
    input: Upload,
}

/// Words before the boxes in the WGSL struct `Fusion`.
const HEADER: usize = 4;

struct Fuse {
    fusion: Fusion,
}

impl Graph {
    /// Adds the fusion of two images (z, y, x) of single floats.
    pub fn fuse(&mut self, fusion: Fusion, foreground: TensorId, background: TensorId) -> Fused {
        let input = self.input((4 * HEADER + fusion.boxes.max(1) * std::mem::size_of::<BoxNumbers>()) as u64);
        let bytes = 4 * product(fusion.patch) as u64;
        let (image, classes) = (self.scratch(bytes), self.scratch(bytes));
        self.push(Fuse { fusion }, &[input.tensor(), foreground, background], &[image, classes]);
        Fused { image, classes, fusion, input }
    }
}

impl Fused {
    /// Uploads the boxes of the next run; later ones cover earlier ones.
    ///
    /// # Panics
    /// When there are more than there may be.
    pub fn upload(&self, session: &mut Session, boxes: &[FusionBox]) {
        assert!(boxes.len() <= self.fusion.boxes, "more boxes than planned");
        let numbers = |&FusionBox { corner, size, class }: &FusionBox| BoxNumbers {
            class_index: class,
            ..BoxNumbers::from(&Window { corner, size })
        };
        let numbers: Vec<BoxNumbers> = boxes.iter().map(numbers).collect();
        let header = [boxes.len() as u32, self.fusion.classes as u32, 0, 0];
        let bytes = [bytemuck::cast_slice(&header), bytemuck::cast_slice::<_, u8>(&numbers)].concat();
        session.set_input(self.input, &bytes);
    }
}

impl Op for Fuse {
    fn name(&self) -> &'static str {
        "fuse"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let [numbers, foreground, background] = [0, 1, 2].map(|k| r.slice(node.inputs[k]));
        let [image, classes] = [0, 1].map(|k| r.slice(node.outputs[k]));
        let voxels = product(self.fusion.patch);
        let params = Params { dims: self.fusion.patch.map(|n| n as u32), pad: 0 };
        let bindings = [numbers, foreground, background, image, classes];
        let workgroups = Workgroups::folded(voxels, 64, 1);
        r.dispatch(Kernel::new("fuse/fuse"), &params, &bindings, workgroups, 0.0, 16.0 * voxels as f64);
    }
}

/// The fused image and the classes of two images (z, y, x) of `shape` voxels.
pub fn plain(
    foreground: &[f32],
    background: &[f32],
    shape: [usize; 3],
    classes: usize,
    boxes: &[FusionBox],
) -> (Vec<f32>, Vec<f32>) {
    let mut class = vec![0.0; foreground.len()];
    for b in boxes {
        for z in b.corner[0]..b.corner[0] + b.size[0] {
            for y in b.corner[1]..b.corner[1] + b.size[1] {
                let first = (z * shape[1] + y) * shape[2] + b.corner[2];
                class[first..first + b.size[2]].fill(b.class as f32);
            }
        }
    }
    let weight = |v: usize| class[v] / (classes - 1) as f32;
    let fused = (0..class.len()).map(|v| weight(v) * foreground[v] + (1.0 - weight(v)) * background[v]).collect();
    (fused, class)
}

/// How far a fusion of two images lies from the CPU's.
///
/// # Errors
/// The device fails.
pub fn check(gpu: &Rc<Gpu>) -> Result<Vec<Deviation>> {
    let fusion = Fusion { patch: PATCH, classes: 5, boxes: 30 };
    let mut graph = Graph::new(Parameters::default(), Precision::F32);
    let images = [graph.image(1, PATCH), graph.image(1, PATCH)];
    let fused = graph.fuse(fusion, images[0].tensor(), images[1].tensor());
    let results = [fused.image, fused.classes].map(|t| graph.keep_words(t));
    let id = graph.id();
    let mut session = Session::new(gpu.clone(), vec![graph], None)?;
    let mut rng = rng(5, Purpose::Test, 0, 0);
    let boxes: Vec<FusionBox> = (0..30)
        .map(|k| {
            let Window { corner, size } = window(&mut rng, [13, 12, 9]);
            FusionBox { corner, size, class: k % 5 }
        })
        .collect();
    let data = [noise(6, product(PATCH)), noise(7, product(PATCH))];
    images.iter().zip(&data).for_each(|(&image, d)| session.set_image(image, d));
    fused.upload(&mut session, &boxes);
    session.run(id)?;
    let [got_image, got_classes] = results.map(|r| session.read_floats(r));
    let (image, classes) = plain(&data[0], &data[1], PATCH, 5, &boxes);
    Ok(vec![deviation("fused", &got_image?, &image), deviation("classes", &got_classes?, &classes)])
}
