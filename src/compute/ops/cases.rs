//! One list of operator cases with three uses: tests, `spark3d doctor` and `spark3d bench`.

pub use super::case::{
    Build, Case, Deviation, GRADIENT_TOLERANCE, HALF_EPSILON, Input, Results, Setup, TOLERANCE, relative_l2,
};

use super::reference::{self as cpu, Shape};
use super::{Bias, Classes, DiceCe, Epilogue, Geometry, Weights, sgd};
use crate::base::error::Result;
use crate::base::random::{Purpose, rng};
use crate::compute::device::Gpu;
use crate::compute::graph::{
    BlockMask, Graph, Input as Upload, Mask, Output, Parameters, Precision, Session, Space, StepValues, TensorId,
    product,
};
use rand::RngExt;
use rand::seq::SliceRandom;
use std::rc::Rc;

/// Normally distributed enough: sum of four uniform numbers, unit variance.
pub fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut r = rng(seed, Purpose::Test, n as u64, 0);
    (0..n).map(|_| ((0..4).map(|_| r.random::<f32>()).sum::<f32>() - 2.0) * 3f32.sqrt()).collect()
}

/// The values as features of this precision hold them: what goes into a case is exact, so that its results differ by the
/// roundings of the operator alone, and no sign by the rounding of what it is the sign of.
pub(super) fn stored(values: Vec<f32>, precision: Precision) -> Vec<f32> {
    match precision {
        Precision::F32 => values,
        Precision::F16 => values.into_iter().map(|v| half::f16::from_f32(v).to_f32()).collect(),
    }
}

/// A mask with `hidden` of the cells hidden, in random places.
pub fn random_mask(seed: u64, grid: [usize; 3], hidden: usize) -> BlockMask {
    let mut visible: Vec<bool> = (0..product(grid)).map(|i| i >= hidden).collect();
    visible.shuffle(&mut rng(seed, Purpose::Test, 1, hidden as u64));
    BlockMask { grid, visible }
}

/// 1 at visible voxels of a space, 0 at hidden ones.
pub fn voxel_mask(space: &Space, masks: &[BlockMask]) -> Vec<f64> {
    let d = space.dims;
    (0..product(d))
        .map(|v| {
            let c = [v / (d[1] * d[2]), v / d[2] % d[1], v % d[2]];
            f64::from(u8::from(space.mask().is_none_or(|m| masks[m as usize].at(c, d))))
        })
        .collect()
}

pub(super) fn f64s(v: &[f32]) -> Vec<f64> {
    v.iter().map(|&x| f64::from(x)).collect()
}

fn masked(values: &[f64], mask: &[f64]) -> Vec<f64> {
    values.iter().enumerate().map(|(k, v)| v * mask[k % mask.len()]).collect()
}

struct ConvCase {
    name: &'static str,
    inputs: Vec<usize>,
    channels: usize,
    dims: [usize; 3],
    geometry: Geometry,
    bias: bool,
    /// Grid and hidden cells; whether input and output are sparse.
    mask: Option<([usize; 3], usize, bool, bool)>,
}

fn conv_case(c: ConvCase, precision: Precision) -> Case {
    let out_dims = c.geometry.output(c.dims);
    let masks: Vec<BlockMask> = c.mask.iter().map(|m| random_mask(7, m.0, m.1)).collect();
    let space = |dims, sparse: bool| match (&c.mask, sparse) {
        (Some(m), true) => Space::sparse(dims, Mask::nth(0, m.0), masks[0].count()).expect("blocks are whole voxels"),
        _ => Space::dense(dims),
    };
    let (in_space, out_space) =
        (space(c.dims, c.mask.is_some_and(|m| m.2)), space(out_dims, c.mask.is_some_and(|m| m.3)));
    let (in_mask, out_mask) = (voxel_mask(&in_space, &masks), voxel_mask(&out_space, &masks));
    let inputs: Vec<Input> = c
        .inputs
        .iter()
        .enumerate()
        .map(|(k, &channels)| Input {
            channels,
            space: in_space,
            values: stored(noise(10 + k as u64, channels * product(c.dims)), precision),
        })
        .collect();
    let width: usize = c.inputs.iter().sum();
    // Cooperative matrices round weights to the precision of features.
    let weight = stored(noise(20, c.channels * width * c.geometry.taps()), precision);
    let bias = noise(21, c.channels);
    let upstream = stored(noise(22, c.channels * product(out_dims)), precision);

    // The dense masked computation: all voxels, times the mask.
    let x: Vec<f64> = inputs.iter().flat_map(|i| masked(&f64s(&i.values), &in_mask)).collect();
    let (w, b, dy) = (f64s(&weight), f64s(&bias), masked(&f64s(&upstream), &out_mask));
    let shape = Shape { channels: width, dims: c.dims };
    let y = masked(&cpu::conv3d(&x, shape, &w, c.bias.then_some(&b[..]), c.channels, c.geometry), &out_mask);
    let (dx, dw, db) = cpu::conv3d_backward(&x, shape, &w, &dy, c.channels, c.geometry);
    let mut expected = vec![("y".to_string(), y), ("dc.weight".to_string(), dw)];
    let mut first = 0;
    for (k, &channels) in c.inputs.iter().enumerate() {
        let part = &dx[first..first + channels * product(c.dims)];
        expected.push((if k == 0 { "dx".into() } else { format!("dx{k}") }, masked(part, &in_mask)));
        first += part.len();
    }
    let mut parameters = vec![("c.weight".to_string(), weight)];
    if c.bias {
        parameters.push(("c.bias".to_string(), bias));
        expected.push(("dc.bias".to_string(), db));
    }
    let (channels, geometry) = (c.channels, c.geometry);
    let kind = if c.bias { Bias::Trained } else { Bias::None };
    let build = Box::new(move |g: &mut Graph, x: &[TensorId], _: &[Upload]| {
        vec![g.conv3d(x, "c", channels, out_space, geometry, kind)]
    });
    Case {
        name: c.name.to_string(),
        setup: Setup { masks, inputs, parameters, build, images: vec![], upstream: vec![upstream] },
        expected,
        precision,
        // The sum over one part of a concatenation is stored before the next is added to it.
        roundings: c.inputs.len() as u32,
    }
}

#[allow(clippy::too_many_arguments)] // what tells one norm from another
fn norm_case(
    name: &str,
    channels: usize,
    dims: [usize; 3],
    mask: Option<([usize; 3], usize)>,
    instances: usize,
    affine: bool,
    residual: bool,
    slope: Option<f32>,
    precision: Precision,
) -> Case {
    let masks: Vec<BlockMask> =
        mask.iter().flat_map(|m| (0..instances).map(|i| random_mask(3 + i as u64, m.0, m.1))).collect();
    let space = |i: usize| match mask {
        Some(m) => Space::sparse(dims, Mask::nth(i, m.0), masks[i].count()).expect("blocks are whole voxels"),
        None => Space::dense(dims),
    };
    let n = channels * product(dims);
    let mut inputs: Vec<Input> = (0..instances)
        .map(|i| Input {
            channels,
            space: space(i),
            values: stored(noise(30 + i as u64, n).iter().map(|v| 3.0 * v + 5.0).collect(), precision),
        })
        .collect();
    let voxel_masks: Vec<Vec<f64>> = (0..instances).map(|i| voxel_mask(&space(i), &masks)).collect();
    if residual {
        inputs.push(Input { channels, space: space(0), values: stored(noise(40, n), precision) });
    }
    let (gamma, beta) = (noise(41, channels), noise(42, channels));
    let upstream: Vec<Vec<f32>> = (0..instances).map(|i| stored(noise(43 + i as u64, n), precision)).collect();
    let xs: Vec<Vec<f64>> = inputs[..instances].iter().map(|i| f64s(&i.values)).collect();
    let ones = vec![1.0; channels];
    let zeros = vec![0.0; channels];
    let (g64, b64) = (f64s(&gamma), f64s(&beta));
    let r64 = residual.then(|| f64s(&inputs[instances].values));
    let norm = cpu::Norm {
        xs: &xs,
        masks: &voxel_masks,
        gamma: if affine { &g64 } else { &ones },
        beta: if affine { &b64 } else { &zeros },
        residual: r64.as_deref(),
        slope: f64::from(slope.unwrap_or(1.0)),
        eps: f64::from(super::EPS),
    };
    let numbered = |base: &str, k: usize| if k == 0 { base.to_string() } else { format!("{base}{k}") };
    let mut expected: Vec<(String, Vec<f64>)> =
        norm.forward().into_iter().enumerate().map(|(k, y)| (numbered("y", k), y)).collect();
    let dys: Vec<Vec<f64>> = upstream.iter().map(|u| f64s(u)).collect();
    let gradient = norm.backward(&dys);
    expected.extend(gradient.dxs.into_iter().enumerate().map(|(k, d)| (numbered("dx", k), d)));
    let mut parameters = Vec::new();
    if affine {
        parameters = vec![("n.weight".to_string(), gamma), ("n.bias".to_string(), beta)];
        expected.push(("dn.weight".into(), gradient.dgamma));
        expected.push(("dn.bias".into(), gradient.dbeta));
    }
    if residual {
        expected.push((numbered("dx", instances), gradient.dresidual));
    }
    let build = Box::new(move |g: &mut Graph, x: &[TensorId], _: &[Upload]| {
        let epilogue = Epilogue { residual: residual.then(|| x[instances]), slope };
        g.joint_norm(&x[..instances], affine.then_some("n"), epilogue)
    });
    Case {
        name: name.to_string(),
        setup: Setup { masks, inputs, parameters, build, images: vec![], upstream },
        expected,
        precision,
        // The gradient behind the activation is stored before that of the input is made of it.
        roundings: 2,
    }
}

/// A case of an operator with one input and one output.
#[allow(clippy::too_many_arguments)] // what tells one operator from another
pub(super) fn simple_case(
    precision: Precision,
    name: &str,
    input: Input,
    masks: Vec<BlockMask>,
    parameters: Vec<(String, Vec<f32>)>,
    build: impl Fn(&mut Graph, TensorId) -> TensorId + 'static,
    reference: impl Fn(&[f64]) -> Vec<f64>,
    backward: impl Fn(&[f64], &[f64]) -> Vec<(&'static str, Vec<f64>)>,
) -> Case {
    let x = masked(&f64s(&input.values), &voxel_mask(&input.space, &masks));
    let y = reference(&x);
    let upstream = stored(noise(50, y.len()), precision);
    let mut expected = vec![("y".to_string(), y)];
    expected.extend(backward(&x, &f64s(&upstream)).into_iter().map(|(n, v)| (n.to_string(), v)));
    let build = Box::new(move |g: &mut Graph, x: &[TensorId], _: &[Upload]| vec![build(g, x[0])]);
    Case {
        name: name.to_string(),
        setup: Setup { masks, inputs: vec![input], parameters, build, images: vec![], upstream: vec![upstream] },
        expected,
        precision,
        roundings: 1,
    }
}

/// The squared error of hidden voxels, or of all: its gradient as `y`, and the loss.
fn loss_case(name: &str, all: bool, precision: Precision) -> Case {
    let (dims, grid, channels) = ([8, 6, 8], [4, 3, 2], 2);
    let mask = random_mask(8, grid, 17);
    let visible = Space::sparse(dims, Mask::nth(0, grid), mask.count()).expect("blocks are whole voxels");
    let (p, t) = (stored(noise(80, channels * product(dims)), precision), noise(81, channels * product(dims)));
    let hidden: Vec<f64> = voxel_mask(&visible, std::slice::from_ref(&mask)).iter().map(|m| 1.0 - m).collect();
    let weights = if all { vec![1.0; hidden.len()] } else { hidden };
    let (loss, gradient) = cpu::masked_l2(&f64s(&p), &f64s(&t), &weights, 1.0);
    let build = Box::new(move |g: &mut Graph, x: &[TensorId], images: &[Upload]| {
        let weights = if all { Weights::All } else { Weights::HiddenOf(visible) };
        g.masked_l2(x[0], images[0].tensor(), weights, true).into_iter().collect()
    });
    let inputs = vec![Input { channels, space: Space::dense(dims), values: p }];
    let setup = Setup { masks: vec![mask], inputs, parameters: vec![], build, images: vec![t], upstream: vec![] };
    Case {
        name: name.into(),
        setup,
        expected: vec![("y".to_string(), gradient), ("loss".to_string(), vec![loss])],
        precision,
        roundings: 1,
    }
}

/// Two samples whose label maps are twice as fine as the logits along two axes.
fn dice_ce_case(name: &str, classes: Classes, background: bool, batch_dice: bool, precision: Precision) -> Case {
    let (channels, dims, fine) = (6, [5, 4, 7], [10, 8, 7]);
    let logits: Vec<Vec<f32>> = (0..2).map(|s| stored(noise(85 + s, channels * product(dims)), precision)).collect();
    let labels: Vec<Vec<f32>> = (0..2).map(|s| random_labels(95 + s, channels as u32, product(fine))).collect();
    let loss = DiceCe { classes, background, batch_dice, smooth: 1e-2, weight_ce: 0.7, weight_dice: 1.3 };
    let coarse: Vec<Vec<u32>> = labels
        .iter()
        .map(|l| {
            let at = |v: usize| [v / (dims[1] * dims[2]) * 2 + 1, v / dims[2] % dims[1] * 2 + 1, v % dims[2]];
            (0..product(dims)).map(at).map(|c| l[(c[0] * fine[1] + c[1]) * fine[2] + c[2]] as u32).collect()
        })
        .collect();
    let f64_logits: Vec<Vec<f64>> = logits.iter().map(|l| f64s(l)).collect();
    let (value, gradients) = cpu::dice_ce(&f64_logits, &coarse, channels, &loss);
    let build = Box::new(move |g: &mut Graph, x: &[TensorId], images: &[Upload]| {
        let maps = [images[0].tensor(), images[1].tensor()];
        g.dice_ce(x, &maps, fine, &loss, 0.5, true)
    });
    let space = Space::dense(dims);
    let inputs = logits.into_iter().map(|values| Input { channels, space, values }).collect();
    let half = |v: &[f64]| v.iter().map(|x| 0.5 * x).collect::<Vec<f64>>();
    Case {
        name: name.into(),
        setup: Setup { masks: vec![], inputs, parameters: vec![], build, images: labels, upstream: vec![] },
        expected: vec![
            ("y".to_string(), half(&gradients[0])),
            ("y1".to_string(), half(&gradients[1])),
            ("loss".to_string(), vec![0.5 * value]),
        ],
        precision,
        roundings: 1,
    }
}

/// Labels 0 to `labels` - 1.
fn random_labels(seed: u64, labels: u32, n: usize) -> Vec<f32> {
    let mut r = rng(seed, Purpose::Test, n as u64, 1);
    (0..n).map(|_| r.random_range(0..labels) as f32).collect()
}

/// Six overlapping regions over the labels 0 to 5, of which 5 is ignored.
fn overlapping_regions() -> Classes {
    let regions = (0..6).map(|c| (1..5).filter(|l| (l * 7 + c) % 3 > 0).collect()).collect();
    Classes { regions: Some(regions), ignore: Some(5) }
}

/// Counts of right and wrong voxels against a plain loop, for classes and for regions.
pub fn check_confusion(gpu: &Rc<Gpu>, precision: Precision) -> Result<Vec<Deviation>> {
    let (channels, dims) = (6, [9, 31, 33]);
    let voxels = product(dims);
    let (logits, labels) = (stored(noise(97, channels * voxels), precision), random_labels(98, 6, voxels));
    let mut deviations = Vec::new();
    for (name, classes) in [("classes", Classes { regions: None, ignore: Some(5) }), ("regions", overlapping_regions())]
    {
        let mut g = Graph::new(Parameters::default(), precision);
        let image = g.image(channels, dims);
        let map = g.image(1, dims);
        let x = g.pack(image.tensor(), channels, Space::dense(dims));
        let counts = g.confusion(x, map.tensor(), dims, &classes);
        let id = g.id();
        let session = Session::new(gpu.clone(), vec![g], None)?;
        session.set_image(image, &logits);
        session.set_image(map, &labels);
        session.run(id)?;
        let mut expected = vec![0.0; 3 * channels];
        for v in (0..voxels).filter(|&v| labels[v] != 5.0) {
            let value = |c: usize| logits[c * voxels + v];
            let largest = (1..channels).fold(0, |best, c| if value(c) > value(best) { c } else { best });
            for c in 0..channels {
                let (predicted, annotated) = match &classes.regions {
                    None => (c == largest, labels[v] as usize == c),
                    Some(r) => (value(c) > 0.0, r[c].contains(&(labels[v] as u32))),
                };
                for (row, counts) in [predicted && annotated, predicted, annotated].into_iter().enumerate() {
                    expected[row * channels + c] += f64::from(u8::from(counts));
                }
            }
        }
        let got: Vec<f32> = session.read_words(counts)?.iter().map(|&n| n as f32).collect();
        let relative = relative_l2(&got, &expected);
        deviations.push(Deviation { result: name.to_string(), relative, tolerance: 0.0 });
    }
    Ok(deviations)
}

/// Gradient norm, clipping and two steps of SGD over the parameters of a small graph, the second with scaled gradients, against the
/// reference; then a step with an infinite gradient, which leaves everything as it is.
pub fn check_optimizer(gpu: &Rc<Gpu>) -> Result<Vec<Deviation>> {
    let (channels, space) = (6, Space::dense([4, 5, 6]));
    let mut g = Graph::new(Parameters::default(), Precision::F32);
    let image = g.image(channels, space.dims);
    let x = g.pack(image.tensor(), channels, space);
    let y = g.conv3d(&[x], "c", 10, space, Geometry::same([3; 3], [1; 3]), Bias::Trained);
    let upstream = g.image(10, space.dims);
    let mut slopes = noise(91, 10 * space.voxels());
    let dy = g.pack(upstream.tensor(), 10, space);
    g.backward(&[(y, dy)], []);
    let (rate, momentum, decay, clip) = (0.1, 0.9, 0.01, 100.0);
    let id = g.id();
    let make = move |p: &_, l: &_| sgd::optimizer(p, l, clip as f32);
    let session = Session::new(gpu.clone(), vec![g], Some(&make))?;
    session.set_image(image, &noise(90, channels * space.voxels()));
    let values = |gradient_scale: f32| {
        let [learning_rate, momentum, weight_decay] = [rate, momentum, decay].map(|v: f64| v as f32);
        StepValues { learning_rate, momentum, weight_decay, loss_scale: 1.0, gradient_scale }
    };
    let ids = 0..session.parameters.list.len();
    let all = |read: &dyn Fn(usize) -> Result<Vec<f32>>| -> Result<Vec<f32>> {
        ids.clone().map(read).collect::<Result<Vec<_>>>().map(|v| v.concat())
    };
    for p in ids.clone() {
        session.set_weight(p, &noise(92 + p as u64, session.parameters.list[p].shape.iter().product()));
    }
    let mut weights = f64s(&all(&|id| session.weight(id))?);
    let mut momenta = vec![0.0; weights.len()];
    let (mut norms, mut expected) = (Vec::new(), Vec::new());
    for scale in [1.0, 1024.0] {
        session.set_step(values(scale));
        session.set_image(upstream, &slopes.iter().map(|s| scale * s).collect::<Vec<f32>>());
        session.start_step();
        session.run(id)?;
        let gradient: Vec<f64> =
            all(&|id| session.gradient(id))?.iter().map(|&v| f64::from(v) / f64::from(scale)).collect();
        session.update()?;
        norms.push(session.output(Output::GradientNorm)?);
        expected.push(cpu::sgd(&mut weights, &mut momenta, &gradient, rate, momentum, decay, clip));
    }
    let deviation = |result: &str, got: &[f32], want: &[f64]| {
        let relative = relative_l2(got, want);
        Deviation { result: result.into(), relative, tolerance: GRADIENT_TOLERANCE }
    };
    let (got_weights, got_momenta) = (all(&|id| session.weight(id))?, all(&|id| session.momentum(id))?);
    slopes[7] = f32::INFINITY;
    session.set_image(upstream, &slopes);
    session.start_step();
    session.run(id)?;
    session.update()?;
    Ok(vec![
        deviation("gradient norm", &norms, &expected),
        deviation("weights", &got_weights, &weights),
        deviation("momentum", &got_momenta, &momenta),
        deviation("weights after an infinite gradient", &all(&|id| session.weight(id))?, &f64s(&got_weights)),
        deviation("momentum after an infinite gradient", &all(&|id| session.momentum(id))?, &f64s(&got_momenta)),
    ])
}

/// [`cases_in`] 32 bits.
pub fn cases() -> Vec<Case> {
    cases_in(Precision::F32)
}

/// Every operator, small: odd sizes, one to several quads, strides, anisotropy, masks; with features of this precision.
pub fn cases_in(precision: Precision) -> Vec<Case> {
    let same = |k: [usize; 3], s: [usize; 3]| Geometry::same(k, s);
    let conv = |name, inputs: &[usize], channels, dims, geometry, bias, mask| {
        conv_case(ConvCase { name, inputs: inputs.to_vec(), channels, dims, geometry, bias, mask }, precision)
    };
    let norm = |name, channels, dims, mask, instances, affine, residual, slope| {
        norm_case(name, channels, dims, mask, instances, affine, residual, slope, precision)
    };
    let k3 = [3; 3];
    let sparse = |grid, hidden| Some((grid, hidden, true, true));
    let mut list = vec![
        conv("conv3d 3x3x3", &[5], 9, [6, 7, 9], same(k3, [1; 3]), true, None),
        conv("conv3d 3x3x3, many channels", &[18], 22, [5, 6, 11], same(k3, [1; 3]), false, None),
        conv("conv3d 3x3x3, above a thousand voxels", &[8], 16, [9, 12, 11], same(k3, [1; 3]), true, None),
        // More voxels and input channels than one staging of weights serves.
        conv("conv3d 3x3x3, many tiles and chunks", &[36], 8, [16, 16, 16], same(k3, [1; 3]), true, None),
        conv("sparse conv3d 3x3x3, many tiles", &[36], 8, [16, 16, 16], same(k3, [1; 3]), true, sparse([2, 2, 2], 2)),
        conv("conv3d 3x3x3 stride 2", &[6], 7, [7, 8, 9], same(k3, [2; 3]), true, None),
        conv("conv3d 1x3x3 stride 1x2x2", &[3], 5, [4, 9, 10], same([1, 3, 3], [1, 2, 2]), true, None),
        conv("conv3d 1x1x1", &[9], 6, [4, 5, 6], same([1; 3], [1; 3]), false, None),
        conv("conv3d of a concatenation", &[6, 5], 8, [5, 6, 7], same(k3, [1; 3]), true, None),
        conv("sparse conv3d 3x3x3", &[8], 12, [12, 12, 12], same(k3, [1; 3]), true, sparse([3, 3, 3], 20)),
        conv(
            "sparse conv3d 3x3x3, anisotropic blocks",
            &[4],
            6,
            [6, 8, 12],
            same(k3, [1; 3]),
            true,
            sparse([3, 2, 3], 9),
        ),
        conv("sparse conv3d stride 2", &[6], 8, [12, 8, 8], same(k3, [2; 3]), true, sparse([3, 2, 2], 7)),
        conv("sparse conv3d to single voxels", &[6], 8, [6, 6, 6], same(k3, [2; 3]), true, sparse([3, 3, 3], 20)),
        conv("conv3d dense to sparse", &[1], 8, [8, 8, 8], same(k3, [1; 3]), true, Some(([2, 2, 2], 5, false, true))),
        conv(
            "conv3d sparse to dense, stride 2",
            &[6],
            8,
            [6, 6, 6],
            same(k3, [2; 3]),
            true,
            Some(([6, 6, 6], 100, true, false)),
        ),
        norm("instance_norm", 5, [5, 6, 7], None, 1, true, false, None),
        norm("instance_norm + residual + leaky_relu", 8, [5, 6, 7], None, 1, true, true, Some(0.01)),
        norm("instance_norm over several chunks", 4, [25, 26, 27], None, 1, true, false, Some(0.01)),
        norm("sparse instance_norm", 6, [8, 6, 4], Some(([4, 3, 2], 17)), 1, true, false, Some(0.01)),
        norm("sparse instance_norm without affine", 6, [8, 8, 8], Some(([2, 2, 2], 6)), 1, false, false, None),
        norm("sparse batch norm", 5, [8, 6, 8], Some(([4, 3, 2], 15)), 2, true, false, None),
    ];

    let dense = |channels: usize, dims: [usize; 3], seed| Input {
        channels,
        space: Space::dense(dims),
        values: stored(noise(seed, channels * product(dims)), precision),
    };
    for (name, cin, cout, dims, stride) in
        [("conv_transpose3d", 9, 6, [3, 4, 5], [2, 2, 2]), ("conv_transpose3d 1x2x2", 8, 5, [4, 3, 5], [1, 2, 2])]
    {
        let shape = Shape { channels: cin, dims };
        let (w, b) = (stored(noise(60, cin * cout * product(stride)), precision), noise(61, cout));
        let (w64, b64) = (f64s(&w), f64s(&b));
        let w_backward = w64.clone();
        list.push(simple_case(
            precision,
            name,
            dense(cin, dims, 62),
            vec![],
            vec![("t.weight".into(), w), ("t.bias".into(), b)],
            move |g, x| g.conv_transpose3d(x, "t", cout, stride),
            move |x| cpu::conv_transpose3d(x, shape, &w64, &b64, cout, stride),
            move |x, dy| {
                let (dx, dw, db) = cpu::conv_transpose3d_backward(x, shape, &w_backward, dy, cout, stride);
                vec![("dx", dx), ("dt.weight", dw), ("dt.bias", db)]
            },
        ));
    }
    for (name, dims, stride) in [
        ("avg_pool3d", [6, 8, 4], [2, 2, 2]),
        ("avg_pool3d odd", [7, 9, 5], [2, 2, 2]),
        ("avg_pool3d 1x2x2", [3, 6, 8], [1, 2, 2]),
    ] {
        let shape = Shape { channels: 6, dims };
        let out = Space::dense(std::array::from_fn(|a| dims[a] / stride[a]));
        list.push(simple_case(
            precision,
            name,
            dense(6, dims, 63),
            vec![],
            vec![],
            move |g, x| g.avg_pool3d(x, stride, out),
            move |x| cpu::avg_pool3d(x, shape, stride),
            move |_, dy| vec![("dx", cpu::avg_pool3d_backward(dy, shape, stride))],
        ));
    }
    {
        let (grid, dims, channels) = ([2, 3, 2], [8, 12, 8], 6);
        let mask = random_mask(5, grid, 7);
        let space = |dims| Space::sparse(dims, Mask::nth(0, grid), mask.count()).expect("blocks are whole voxels");
        let (fine, coarse) = (space(dims), space([4, 6, 4]));
        let shape = Shape { channels, dims };
        let coarse_mask = voxel_mask(&coarse, std::slice::from_ref(&mask));
        list.push(simple_case(
            precision,
            "sparse avg_pool3d",
            Input { channels, space: fine, values: stored(noise(64, channels * product(dims)), precision) },
            vec![mask.clone()],
            vec![],
            move |g, x| g.avg_pool3d(x, [2; 3], coarse),
            move |x| cpu::avg_pool3d(x, shape, [2; 3]),
            move |_, dy| vec![("dx", cpu::avg_pool3d_backward(&masked(dy, &coarse_mask), shape, [2; 3]))],
        ));
        let token = noise(65, channels);
        let (t64, m, m2) = (
            f64s(&token),
            voxel_mask(&fine, std::slice::from_ref(&mask)),
            voxel_mask(&fine, std::slice::from_ref(&mask)),
        );
        list.push(simple_case(
            precision,
            "densify with a mask token",
            Input { channels, space: fine, values: stored(noise(66, channels * product(dims)), precision) },
            vec![mask],
            vec![("token".into(), token)],
            move |g, x| g.densify(x, Some("token")),
            move |x| cpu::densify(x, &m, &t64),
            move |_, dy| {
                let (dx, dtoken) = cpu::densify_backward(dy, &m2);
                vec![("dx", dx), ("dtoken", dtoken)]
            },
        ));
    }
    for (name, dims, out) in [("interpolate up", [4, 5, 6], [7, 9, 13]), ("interpolate down", [9, 8, 7], [4, 5, 3])] {
        let shape = Shape { channels: 5, dims };
        list.push(simple_case(
            precision,
            name,
            dense(5, dims, 67),
            vec![],
            vec![],
            move |g, x| g.interpolate(x, out),
            move |x| cpu::interpolate(x, shape, out),
            move |_, dy| vec![("dx", cpu::interpolate_backward(dy, shape, out))],
        ));
    }
    list.push(simple_case(
        precision,
        "leaky_relu",
        dense(5, [4, 5, 6], 68),
        vec![],
        vec![],
        |g, x| g.leaky_relu(x, 0.01),
        |x| cpu::leaky_relu(x, 0.01),
        |x, dy| vec![("dx", cpu::leaky_relu_backward(x, dy, 0.01))],
    ));
    list.push(simple_case(
        precision,
        "add, both operands the same",
        dense(5, [4, 5, 6], 69),
        vec![],
        vec![],
        |g, x| g.add(x, x),
        |x| x.iter().map(|v| 2.0 * v).collect(),
        |_, dy| vec![("dx", dy.iter().map(|v| 2.0 * v).collect())],
    ));
    list.push(loss_case("masked_l2", false, precision));
    list.push(loss_case("masked_l2 of all voxels", true, precision));
    let classes = |ignore| Classes { regions: None, ignore };
    list.push(dice_ce_case("dice_ce", classes(None), false, false, precision));
    list.push(dice_ce_case("dice_ce with the background", classes(None), true, false, precision));
    list.push(dice_ce_case("dice_ce over the batch, one label ignored", classes(Some(5)), false, true, precision));
    list.push(dice_ce_case("dice_bce of regions", overlapping_regions(), false, true, precision));
    list.extend(super::voco_cases::cases(precision));
    list
}

/// The shapes that decide the speed of a real network, by name: forward and backward of 3x3x3 convolutions.
pub fn benchmarks() -> Vec<(String, Setup)> {
    let conv = |channels: usize, size: usize, hidden: f64| {
        let dims = [size; 3];
        let (masks, space) = if hidden > 0.0 {
            let grid = [4; 3];
            let mask = random_mask(1, grid, (hidden * product(grid) as f64) as usize);
            let space = Space::sparse(dims, Mask::nth(0, grid), mask.count()).expect("blocks are whole voxels");
            (vec![mask], space)
        } else {
            (vec![], Space::dense(dims))
        };
        let n = channels * product(dims);
        let setup = Setup {
            masks,
            inputs: vec![Input { channels, space, values: noise(1, n) }],
            parameters: vec![("c.weight".into(), noise(2, channels * channels * 27))],
            build: Box::new(move |g, x, _| {
                vec![g.conv3d(x, "c", channels, space, Geometry::same([3; 3], [1; 3]), Bias::None)]
            }),
            images: vec![],
            upstream: vec![noise(3, n)],
        };
        let mask = if hidden > 0.0 { format!(", {:.0} % masked", 100.0 * hidden) } else { String::new() };
        (format!("conv3d {channels} -> {channels} @ {size}^3{mask}"), setup)
    };
    vec![conv(32, 64, 0.0), conv(128, 24, 0.0), conv(320, 10, 0.0), conv(8, 64, 0.0), conv(32, 64, 0.75)]
}
