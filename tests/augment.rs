//! Augmentation on the device against its CPU reference, with bounds checks in the shaders.

mod support;

use spark3d::base::random::{Purpose, rng};
use spark3d::compute::device::Gpu;
use spark3d::compute::graph::plan::Limits;
use spark3d::compute::graph::{Graph, GraphId, Parameters, Precision, Readout, Session};
use spark3d::compute::ops::augment::{Augmentation, Augmented, Interpolation, PART};
use spark3d::compute::ops::cases::noise;
use spark3d::data::augment::segmentation::{Noise, Sampled};
use spark3d::data::augment::spatial::{self, CropTransform, Matrix};
use spark3d::data::augment::{self, Change};
use spark3d::data::dataset::{LabelledPatch, Patch};
use spark3d::data::preprocess::case::OUTSIDE;
use spark3d::tasks::plan::{Plan, finetune};
use spark3d::tasks::pretexts::mae::Mae;
use spark3d::tasks::{augmentation, segmentation};
use std::rc::Rc;
use support::checked_gpu as gpu;

/// The head of a graph alone, for `samples` samples.
struct Head {
    session: Session,
    graph: GraphId,
    samples: Vec<Augmented>,
    results: Vec<(Readout, Option<Readout>)>,
}

impl Head {
    fn new(gpu: &Rc<Gpu>, a: Augmentation, samples: usize) -> Self {
        let mut g = Graph::new(Parameters::default(), Precision::F32);
        let samples: Vec<Augmented> = (0..samples).map(|_| g.augment(&a)).collect();
        let results = samples.iter().map(|s| (g.keep_words(s.image), s.labels.map(|t| g.keep_words(t)))).collect();
        let graph = g.id();
        let session = Session::new(gpu.clone(), vec![g], None).unwrap();
        Self { session, graph, samples, results }
    }

    fn cubic(gpu: &Rc<Gpu>, patch: [usize; 3], region: [usize; 3]) -> Self {
        Self::new(gpu, cubic(patch, region), 1)
    }

    fn labelled(gpu: &Rc<Gpu>, channels: usize, patch: [usize; 3], region: [usize; 3]) -> Self {
        Self::new(gpu, labelled(channels, patch, region), 1)
    }

    fn run(&self) {
        self.session.run(self.graph).unwrap();
    }

    fn upload(&mut self, sample: usize, patch: &LabelledPatch) {
        augmentation::upload_labelled(&mut self.session, &self.samples[sample], patch);
    }

    fn image(&self, sample: usize) -> Vec<f32> {
        self.session.read_floats(self.results[sample].0).unwrap()
    }

    fn patch(&mut self, patch: &Patch) -> Vec<f32> {
        augmentation::upload(&mut self.session, &self.samples[0], patch);
        self.run();
        self.image(0)
    }

    fn sample(&mut self, patch: &LabelledPatch) -> (Vec<f32>, Vec<i16>) {
        self.upload(0, patch);
        self.run();
        self.read(0)
    }

    fn read(&self, sample: usize) -> (Vec<f32>, Vec<i16>) {
        let labels = self.session.read_floats(self.results[sample].1.expect("labels")).unwrap();
        (self.image(sample), labels.into_iter().map(|v| v as i16).collect())
    }
}

fn cubic(patch: [usize; 3], region: [usize; 3]) -> Augmentation {
    let interpolation = Interpolation::Cubic;
    Augmentation { channels: 1, patch, region, part: PART, interpolation, intensities: false, labels: false }
}

fn labelled(channels: usize, patch: [usize; 3], region: [usize; 3]) -> Augmentation {
    let interpolation = Interpolation::Linear;
    Augmentation { channels, patch, region, part: PART, interpolation, intensities: true, labels: true }
}

fn volume(shape: [usize; 3]) -> usize {
    shape.iter().product()
}

/// The region of a volume that a cut asks for.
fn region<T: Copy>(whole: &[T], shape: [usize; 3], cut: &CropTransform) -> Vec<T> {
    let mut out = Vec::new();
    for z in 0..cut.shape[0] {
        for y in 0..cut.shape[1] {
            let row = ((cut.start[0] + z) * shape[1] + cut.start[1] + y) * shape[2] + cut.start[2];
            out.extend_from_slice(&whole[row..row + cut.shape[2]]);
        }
    }
    out
}

/// Boxes of labels 0 to 4 with some voxels outside.
fn label_map(shape: [usize; 3]) -> Vec<i16> {
    (0..volume(shape))
        .map(|n| {
            let at = [n / (shape[1] * shape[2]), n / shape[2] % shape[1], n % shape[2]];
            if at[2] < 2 { OUTSIDE } else { ((at[0] / 4 + 2 * (at[1] / 5) + 3 * (at[2] / 3)) % 5) as i16 }
        })
        .collect()
}

fn nothing(channels: usize) -> Sampled {
    Sampled {
        matrix: None,
        noise: None,
        blur: vec![None; channels],
        brightness: vec![None; channels],
        contrast: vec![None; channels],
        low_resolution: vec![None; channels],
        inverted_gamma: vec![None; channels],
        gamma: vec![None; channels],
        mirror: [false; 3],
    }
}

/// max |got - want| in units of the reference's range.
fn deviation(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let (low, high) = want.iter().fold((f32::MAX, f32::MIN), |(l, h), &v| (l.min(v), h.max(v)));
    let worst =
        got.iter().zip(want).map(|(g, w)| f64::from(g - w).abs()).fold(0.0, |m: f64, d| if d > m { d } else { m });
    assert!(got.iter().all(|v| v.is_finite()));
    worst / f64::from(high - low).max(1e-30)
}

/// (matrix, patch, crop): rotations and zooms in and out, anisotropic patches, crops that end within the patch, axes of one and two
/// voxels.
fn turns() -> Vec<(Matrix, [usize; 3], [usize; 3])> {
    vec![
        (spatial::matrix([0.4, -0.3, 0.2], 0.8), [13, 21, 9], [41, 43, 45]),
        (spatial::matrix([-0.5, 0.5, 0.5], 1.4), [17, 12, 31], [29, 30, 31]),
        (spatial::matrix([0.0; 3], 1.3), [10, 11, 12], [10, 11, 12]),
        (spatial::matrix([0.1, 0.0, 0.0], 0.7), [5, 40, 33], [9, 64, 53]),
        (spatial::matrix([0.2, 0.1, -0.1], 1.0), [2, 9, 11], [2, 15, 17]),
        (spatial::matrix([0.3, 0.0, 0.0], 1.1), [1, 16, 19], [1, 27, 30]),
    ]
}

/// Interpolation in 32 bits: each of three prefilters multiplies a rounding by up to 3, and 64 products are added up.
const CUBIC: f64 = 3e-6;
const LINEAR: f64 = 5e-7;

#[test]
fn cubic_resampling_equals_its_reference() {
    let gpu = gpu();
    for (n, (matrix, patch, crop)) in turns().into_iter().enumerate() {
        let cut = CropTransform::new(matrix, patch, crop);
        let data = region(&noise(n as u64, volume(crop)), crop, &cut);
        let change = Change { cut: Some(cut.clone()), mirror: [n % 2 == 0, n % 3 == 0, n % 4 < 2] };
        let patch = Patch { change, ..Patch::plain(data, cut.shape, "noise") };
        // The graph has room for more than the region.
        let mut head = Head::cubic(&gpu, cut.patch, crop.map(|n| n + 3));
        let (got, want) = (head.patch(&patch), patch.apply());
        let worst = deviation(&got, &want);
        println!("{:?} from {:?}: {worst:.1e}", cut.patch, cut.shape);
        assert!(worst < CUBIC, "{n}: {worst:.2e}");
        // What was uploaded is still there.
        head.run();
        assert!(head.image(0) == got, "the same upload gives the same bits");
    }
}

#[test]
fn linear_resampling_and_labels_equal_their_reference() {
    let gpu = gpu();
    let flat = [[1.0, 0.0, 0.0], [0.0, 0.9, -0.6], [0.0, 0.6, 0.9]];
    for (n, (matrix, patch, crop)) in turns().into_iter().chain([(flat, [4, 33, 29], [4, 60, 61])]).enumerate() {
        let cut = CropTransform::linear(matrix, patch, crop);
        let image: Vec<f32> =
            (0..2).flat_map(|c| region(&noise(10 * c + n as u64, volume(crop)), crop, &cut)).collect();
        let labels = region(&label_map(crop), crop, &cut);
        let sampled = Sampled { mirror: [n % 2 == 0, n % 3 == 0, n % 4 < 2], ..nothing(2) };
        let plain = LabelledPatch::plain(image, labels, cut.shape, "noise");
        let patch = LabelledPatch { cut: Some(cut.clone()), sampled: Some(sampled), ..plain };
        let (image, labels) = Head::labelled(&gpu, 2, cut.patch, crop).sample(&patch);
        let (want, want_labels) = patch.apply();
        let worst = deviation(&image, &want);
        let other = labels.iter().zip(&want_labels).filter(|(a, b)| a != b).count();
        println!("{:?} from {:?}: {worst:.1e}, {other} of {} labels differ", cut.patch, cut.shape, labels.len());
        assert!(worst < LINEAR, "{n}: {worst:.2e}");
        assert_eq!(other, 0, "{n}");
        let kinds: std::collections::BTreeSet<i16> = labels.into_iter().collect();
        assert!(kinds.len() > 2 && !kinds.contains(&OUTSIDE));
    }
}

/// Crops of more than an adapter binds: each voxel lies in one of several buffers, and every bit is that of one buffer.
#[test]
fn crops_in_parts_give_the_bits_of_the_whole() {
    let (gpu, patch, crop) = (gpu(), [11, 12, 13], [19, 23, 21]);
    let matrix = spatial::matrix([0.4, -0.3, 0.2], 0.9);
    let cut = CropTransform::new(matrix, patch, crop);
    let data = region(&noise(3, volume(crop)), crop, &cut);
    let turned = Patch {
        change: Change { cut: Some(cut.clone()), mirror: [true, false, true] },
        ..Patch::plain(data, cut.shape, "noise")
    };
    let plain = Patch::plain(noise(4, volume(patch)), patch, "noise");
    let cut = CropTransform::linear(matrix, patch, crop);
    let image = (0..2).flat_map(|c| region(&noise(c, volume(crop)), crop, &cut)).collect();
    let labels = region(&label_map(crop), crop, &cut);
    let sample = LabelledPatch { cut: Some(cut.clone()), ..LabelledPatch::plain(image, labels, cut.shape, "noise") };
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    let of = |part: usize| {
        let image = Head::new(&gpu, Augmentation { part, ..cubic(patch, crop) }, 1).patch(&turned);
        let (channels, labels) = Head::new(&gpu, Augmentation { part, ..labelled(2, patch, crop) }, 1).sample(&sample);
        (bits(image), bits(channels), labels)
    };
    let whole = of(PART);
    for parts in [2, 3] {
        assert!(of(volume(crop).div_ceil(parts)) == whole, "{parts} parts");
    }
    // A patch that is copied as it is, with its last voxel in a part of its own.
    let a = Augmentation { part: volume(patch) - 1, ..cubic(patch, patch) };
    assert_eq!(bits(Head::new(&gpu, a, 1).patch(&plain)), bits(plain.data));
}

/// Every change of intensities by itself, and all of them, on two channels of which one is masked.
#[test]
fn changes_of_intensities_equal_their_reference() {
    let gpu = gpu();
    let shape = [11, 23, 37];
    let image: Vec<f32> = noise(1, 2 * volume(shape)).iter().map(|v| v + 0.3).collect();
    let labels = label_map(shape);
    let mut head = Head::labelled(&gpu, 2, shape, shape);
    let sampled = || nothing(2);
    let cases: Vec<(&str, f64, Sampled)> = vec![
        ("noise", 2e-7, Sampled { noise: Some(Noise { sigma: 0.1, seed: 0x1234_5678_9abc_def0 }), ..sampled() }),
        ("blur", 5e-7, Sampled { blur: vec![Some([0.5, 0.8, 1.0]), Some([3.0, 0.1, 20.0])], ..sampled() }),
        ("brightness", 2e-7, Sampled { brightness: vec![Some(1.2), None], ..sampled() }),
        ("contrast", 1e-6, Sampled { contrast: vec![Some(1.25), Some(0.75)], ..sampled() }),
        (
            "low resolution",
            5e-7,
            Sampled { low_resolution: vec![Some([0.5; 3]), Some([1.0, 0.73, 0.73])], ..sampled() },
        ),
        ("gamma of the negative", 3e-6, Sampled { inverted_gamma: vec![Some(0.7), Some(1.5)], ..sampled() }),
        ("gamma", 3e-6, Sampled { gamma: vec![Some(1.5), Some(0.7)], ..sampled() }),
        ("mirroring", 0.0, Sampled { mirror: [true, false, true], ..sampled() }),
        (
            "everything",
            1e-5,
            Sampled {
                matrix: None,
                noise: Some(Noise { sigma: 0.07, seed: 5 }),
                blur: vec![None, Some([0.7, 0.6, 0.9])],
                brightness: vec![Some(0.8), Some(1.1)],
                contrast: vec![Some(0.8), Some(1.2)],
                low_resolution: vec![Some([0.6; 3]), None],
                inverted_gamma: vec![Some(1.3), Some(0.8)],
                gamma: vec![Some(0.9), Some(1.4)],
                mirror: [true; 3],
            },
        ),
    ];
    for (name, tolerance, sampled) in cases {
        let plain = LabelledPatch::plain(image.clone(), labels.clone(), shape, "noise");
        let patch = LabelledPatch { sampled: Some(sampled), masked: vec![false, true], ..plain };
        let (got, got_labels) = head.sample(&patch);
        let (want, want_labels) = patch.apply();
        let worst = (0..2).map(|c| {
            let channel = c * volume(shape)..(c + 1) * volume(shape);
            deviation(&got[channel.clone()], &want[channel])
        });
        let worst = worst.fold(0.0, f64::max);
        println!("{name}: {worst:.1e}");
        assert!(worst <= tolerance, "{name}: {worst:.2e}");
        assert_eq!(got_labels, want_labels, "{name}");
        assert!(head.sample(&patch).0 == got, "{name}: the same numbers give the same bits");
        let untouched = got.iter().zip(&image).filter(|(g, v)| g == v).count();
        assert!(untouched < got.len(), "{name}: something has changed");
    }
}

#[test]
fn a_constant_channel_stays_finite() {
    let (gpu, shape) = (gpu(), [5, 6, 7]);
    let sampled =
        Sampled { contrast: vec![Some(0.8)], inverted_gamma: vec![Some(0.7)], gamma: vec![Some(1.4)], ..nothing(1) };
    let plain = LabelledPatch::plain(vec![3.0; 210], vec![0; 210], shape, "constant");
    let patch = LabelledPatch { sampled: Some(sampled), ..plain };
    let (image, _) = Head::labelled(&gpu, 1, shape, shape).sample(&patch);
    assert!(image.iter().all(|v| (v - 3.0).abs() < 1e-5), "{image:?}");
}

#[test]
fn what_is_not_drawn_changes_no_bit() {
    let (gpu, shape) = (gpu(), [7, 9, 11]);
    let mut image = noise(3, 2 * volume(shape));
    image[..4].copy_from_slice(&[-0.0, f32::MIN_POSITIVE / 4.0, 1e30, -1e-30]);
    let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let labels: Vec<i16> = label_map(shape);
    let mut head = Head::labelled(&gpu, 2, shape, [12, 13, 14]);
    for sampled in [None, Some(nothing(2))] {
        let plain = LabelledPatch::plain(image.clone(), labels.clone(), shape, "noise");
        let (got, got_labels) = head.sample(&LabelledPatch { sampled, ..plain });
        assert_eq!(bits(&got), bits(&image));
        assert!(got_labels.iter().zip(&labels).all(|(g, l)| *g == *l.max(&0)));
    }
    // Whatever was sampled before.
    let noisy = Sampled { noise: Some(Noise { sigma: 1.0, seed: 1 }), mirror: [true; 3], ..nothing(2) };
    let cut = CropTransform::linear(spatial::matrix([0.3; 3], 1.1), shape, [12, 13, 14]);
    let plain = LabelledPatch::plain(vec![1.0; 2 * volume(cut.shape)], vec![1; volume(cut.shape)], cut.shape, "ones");
    head.sample(&LabelledPatch { sampled: Some(noisy), cut: Some(cut), ..plain });
    let (got, _) = head.sample(&LabelledPatch::plain(image.clone(), labels, shape, "noise"));
    assert_eq!(bits(&got), bits(&image));

    let patch = Patch::plain(image[..volume(shape)].to_vec(), shape, "noise");
    assert_eq!(bits(&Head::cubic(&gpu, shape, [20; 3]).patch(&patch)), bits(&patch.data));
}

/// Where the image is the label, it stays so: beyond one half exactly where the label is.
#[test]
fn image_and_labels_stay_aligned() {
    let (gpu, patch, crop) = (gpu(), [21, 25, 30], [34, 41, 48]);
    let whole: Vec<i16> = label_map(crop).into_iter().map(|l| i16::from(l > 1)).collect();
    let mut head = Head::labelled(&gpu, 2, patch, crop);
    let settings = augment::segmentation::Settings {
        rotation_probability: 1.0,
        scale_probability: 1.0,
        noise_probability: 0.0,
        brightness_probability: 0.0,
        blur_probability: 0.0,
        contrast_probability: 0.0,
        low_resolution_probability: 0.0,
        inverted_gamma_probability: 0.0,
        gamma_probability: 0.0,
        ..Default::default()
    };
    let mut mirrored = 0;
    for k in 0..12 {
        let sampled = settings.sample(&mut rng(1, Purpose::Test, k, 0), 2, patch);
        mirrored += sampled.mirror.iter().filter(|&&m| m).count();
        let cut = CropTransform::linear(sampled.matrix.unwrap(), patch, crop);
        let labels = region(&whole, crop, &cut);
        // The second channel tells what lies within the crop: around it, zeros and the label "outside" take region.
        let image = labels.iter().map(|&l| f32::from(l)).chain(labels.iter().map(|_| 1.0)).collect();
        let plain = LabelledPatch::plain(image, labels, cut.shape, "boxes");
        let (image, labels) = head.sample(&LabelledPatch { cut: Some(cut), sampled: Some(sampled), ..plain });
        let (value, within) = image.split_at(volume(patch));
        let clear = (0..labels.len()).filter(|&v| within[v] > 0.999_999 && (value[v] - 0.5).abs() > 1e-5);
        let wrong = clear.clone().filter(|&v| (value[v] > 0.5) != (labels[v] == 1)).count();
        assert_eq!(wrong, 0, "sampled {k}");
        assert!(clear.count() > labels.len() / 2);
        assert!(labels.iter().filter(|&&l| l == 1).count() > labels.len() / 10);
    }
    assert!((8..28).contains(&mirrored));
}

#[test]
fn samples_of_one_graph_do_not_mix() {
    let (gpu, shape) = (gpu(), [6, 7, 8]);
    let a = labelled(2, shape, [12; 3]);
    let mut together = Head::new(&gpu, a.clone(), 2);
    let cut = CropTransform::linear(spatial::matrix([0.3, 0.2, 0.1], 1.2), shape, [12; 3]);
    let first = LabelledPatch {
        cut: Some(cut.clone()),
        sampled: Some(Sampled { gamma: vec![None, Some(1.3)], ..nothing(2) }),
        ..LabelledPatch::plain(noise(1, 2 * volume(cut.shape)), label_map(cut.shape), cut.shape, "a")
    };
    let second = LabelledPatch {
        sampled: Some(Sampled {
            noise: Some(Noise { sigma: 0.1, seed: 2 }),
            mirror: [true, false, false],
            ..nothing(2)
        }),
        ..LabelledPatch::plain(noise(2, 2 * volume(shape)), label_map(shape), shape, "b")
    };
    together.upload(0, &first);
    together.upload(1, &second);
    together.run();
    for (n, patch) in [first, second].iter().enumerate() {
        assert_eq!(together.read(n), Head::new(&gpu, a.clone(), 1).sample(patch), "sample {n}");
    }
}

/// The longest lines and largest positions that a training has.
#[test]
fn positions_are_exact_in_large_patches() {
    let (gpu, patch, crop) = (gpu(), [4, 6, 160], [30, 40, 257]);
    let cut = CropTransform::new(spatial::matrix([0.02, 0.07, -0.11], 1.013), patch, crop);
    let data = region(&noise(4, volume(crop)), crop, &cut);
    let change = Change { cut: Some(cut.clone()), mirror: [false; 3] };
    let patch = Patch { change, ..Patch::plain(data, cut.shape, "noise") };
    let worst = deviation(&Head::cubic(&gpu, cut.patch, crop).patch(&patch), &patch.apply());
    println!("{worst:.1e}");
    assert!(worst < CUBIC, "{worst:.2e}");
}

#[test]
fn crops_that_an_adapter_cannot_bind_are_refused_with_a_remedy() {
    let limits = Limits { max_binding: 128 << 20, max_buffer: 1 << 31, micro_batches: false };
    let checked = |plan: &Plan| {
        let augmentation = plan.pretext.augmentation(&plan.frame());
        augmentation.check(limits).map(|()| augmentation)
    };
    let mut plan = Plan::preset("s3d-b").unwrap();
    assert_eq!(checked(&plan).unwrap().region, [257; 3]);
    // In parts, a crop may have more than is bound at once.
    plan.train.patch = [224; 3];
    assert!(volume(checked(&plan).unwrap().region) > PART);
    plan.train.patch = [304; 3];
    // Of what binds more, the parts are larger.
    let large = Limits { max_binding: 1 << 30, ..limits };
    assert!(plan.pretext.augmentation(&plan.frame()).check(large).is_ok());
    let error = checked(&plan).unwrap_err().to_string();
    assert!(error.contains("304 x 304 x 304") && error.contains("train.patch"), "{error}");
    let mut mae = plan.settings::<Mae>().unwrap().clone();
    (mae.augment.rotation_probability, mae.augment.scale_probability) = (0.0, 0.0);
    plan.pretext = Box::new(mae);
    assert_eq!(checked(&plan).unwrap().region, [304; 3]);
    let mut plan = finetune::Plan::preset("paper").unwrap();
    plan.network.input_channels = 4;
    assert!(segmentation::augmentation(&plan.augment, &plan.frame()).check(limits).is_ok());
}
