//! Stored and computed by visible blocks, the encoder gives what the dense masked computation gives, for random masks at 30, 60,
//! 75 and 90 %: stage outputs and every gradient. The dense side is plain f64 loops over all voxels that multiply by the mask
//! after every convolution and count visible voxels in every norm.

mod support;

use spark3d::compute::graph::{BlockMask, Graph, Mask, Parameters, Precision, Session, VoxelLayout, product};
use spark3d::compute::model::init::{Init, initial_values};
use spark3d::compute::model::{self, Network};
use spark3d::compute::ops::cases::{noise, random_mask, relative_l2, voxel_mask};
use spark3d::compute::ops::reference::{self as cpu, Norm, Shape};
use spark3d::compute::ops::{EPS, Geometry};
use std::collections::HashMap;

const PATCH: [usize; 3] = [16; 3];
const GRID: [usize; 3] = [4; 3];
const SLOPE: f64 = 0.01;

fn network() -> Network {
    Network {
        encoder: Default::default(),
        input_channels: 1,
        output_channels: 1,
        features: vec![4, 6, 8],
        blocks: vec![1, 2, 1],
        strides: vec![[1; 3], [2; 3], [2; 3]],
        kernels: vec![[3; 3]; 3],
        decoder_convs: vec![1; 2],
        deep_supervision: false,
        layers: Default::default(),
    }
}

/// The dense masked encoder on the CPU: parameters by name, gradients added up by name.
struct Dense {
    parameters: HashMap<String, Vec<f64>>,
    gradients: HashMap<String, Vec<f64>>,
}

/// What a convolution with norm keeps for its backward pass.
struct Layer {
    name: String,
    x: Vec<f64>,
    input: Shape,
    geometry: Geometry,
    channels: usize,
    bias: bool,
    y: Vec<f64>,
    residual: Option<Vec<f64>>,
    slope: f64,
}

fn masked(values: &[f64], mask: &[f64]) -> Vec<f64> {
    values.iter().enumerate().map(|(k, v)| v * mask[k % mask.len()]).collect()
}

impl Dense {
    fn get(&self, name: &str) -> &[f64] {
        self.parameters.get(name).unwrap_or_else(|| panic!("no {name}"))
    }

    fn add(&mut self, name: String, gradient: Vec<f64>) {
        let total = self.gradients.entry(name).or_insert_with(|| vec![0.0; gradient.len()]);
        total.iter_mut().zip(gradient).for_each(|(t, g)| *t += g);
    }

    #[allow(clippy::too_many_arguments)] // what a layer is made of
    fn layer(
        &self,
        name: &str,
        x: &[f64],
        input: Shape,
        channels: usize,
        geometry: Geometry,
        mask: &[f64],
        residual: Option<Vec<f64>>,
        slope: f64,
    ) -> (Layer, Vec<f64>) {
        let bias = self.parameters.contains_key(&format!("{name}.conv.bias"));
        let b = bias.then(|| self.get(&format!("{name}.conv.bias")));
        let y = masked(&cpu::conv3d(x, input, self.get(&format!("{name}.conv.weight")), b, channels, geometry), mask);
        let layer = Layer { name: name.into(), x: x.to_vec(), input, geometry, channels, bias, y, residual, slope };
        let out = self.norm(&layer, mask).remove(0);
        (layer, out)
    }

    fn with_norm<T>(&self, l: &Layer, mask: &[f64], f: impl FnOnce(Norm) -> T) -> T {
        let (gamma, beta) = (self.get(&format!("{}.norm.weight", l.name)), self.get(&format!("{}.norm.bias", l.name)));
        let (xs, masks) = (vec![l.y.clone()], vec![mask.to_vec()]);
        f(Norm {
            xs: &xs,
            masks: &masks,
            gamma,
            beta,
            residual: l.residual.as_deref(),
            slope: l.slope,
            eps: f64::from(EPS),
        })
    }

    fn norm(&self, l: &Layer, mask: &[f64]) -> Vec<Vec<f64>> {
        self.with_norm(l, mask, |n| n.forward())
    }

    /// Returns (dx, gradient of the residual).
    fn backward(&mut self, l: &Layer, dy: &[f64], mask: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let g = self.with_norm(l, mask, |n| n.backward(&[dy.to_vec()]));
        let dc = masked(&g.dxs[0], mask);
        let (dx, dw, db) = cpu::conv3d_backward(
            &l.x,
            l.input,
            self.get(&format!("{}.conv.weight", l.name)),
            &dc,
            l.channels,
            l.geometry,
        );
        self.add(format!("{}.norm.weight", l.name), g.dgamma);
        self.add(format!("{}.norm.bias", l.name), g.dbeta);
        self.add(format!("{}.conv.weight", l.name), dw);
        if l.bias {
            self.add(format!("{}.conv.bias", l.name), db);
        }
        (dx, g.dresidual)
    }

    /// Stage outputs, and gradients of all parameters for the given upstream gradient of each stage.
    fn run(&mut self, net: &Network, image: &[f64], masks: &[Vec<f64>], upstream: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let dims = model::stage_dims(net, PATCH);
        let same = |stride| Geometry::same([3; 3], stride);
        let shape = |channels, s: usize| Shape { channels, dims: dims[s] };
        let (stem, mut x) = self.layer(
            "encoder.stem.convs.0",
            image,
            shape(1, 0),
            net.features[0],
            same([1; 3]),
            &masks[0],
            None,
            SLOPE,
        );
        let mut blocks = Vec::new();
        let mut stages = Vec::new();
        let mut channels = net.features[0];
        for (s, &count) in net.blocks.iter().enumerate() {
            for b in 0..count {
                let (from, stride) = if b == 0 && s > 0 { (s - 1, [2; 3]) } else { (s, [1; 3]) };
                let name = format!("encoder.stages.{s}.blocks.{b}");
                let input = shape(channels, from);
                let pooled = if from != s { cpu::avg_pool3d(&x, input, stride) } else { x.clone() };
                let (projection, skip) = if channels != net.features[s] {
                    let one = Geometry::same([1; 3], [1; 3]);
                    let (l, y) = self.layer(
                        &format!("{name}.skip.1"),
                        &pooled,
                        shape(channels, s),
                        net.features[s],
                        one,
                        &masks[s],
                        None,
                        1.0,
                    );
                    (Some(l), y)
                } else {
                    (None, pooled)
                };
                let (l1, a) = self.layer(
                    &format!("{name}.conv1"),
                    &x,
                    input,
                    net.features[s],
                    same(stride),
                    &masks[s],
                    None,
                    SLOPE,
                );
                channels = net.features[s];
                let (l2, y) = self.layer(
                    &format!("{name}.conv2"),
                    &a,
                    shape(channels, s),
                    channels,
                    same([1; 3]),
                    &masks[s],
                    Some(skip),
                    SLOPE,
                );
                x = y;
                blocks.push((s, from, input, projection, l1, l2));
            }
            stages.push(x.clone());
        }
        // Backwards: the gradient of a stage output arrives from upstream and from the next stage.
        let mut dx = vec![0.0; x.len()];
        let mut stage_done = net.stages();
        for (s, from, input, projection, l1, l2) in blocks.iter().rev() {
            if *s < stage_done {
                dx.iter_mut().zip(&upstream[*s]).for_each(|(d, u)| *d += u);
                stage_done = *s;
            }
            let (da, mut dskip) = self.backward(l2, &dx, &masks[*s]);
            let (mut total, _) = self.backward(l1, &masked(&da, &masks[*s]), &masks[*s]);
            if let Some(p) = projection {
                dskip = self.backward(p, &dskip, &masks[*s]).0;
            }
            if from != s {
                dskip = cpu::avg_pool3d_backward(&dskip, *input, [2; 3]);
            }
            total.iter_mut().zip(dskip).for_each(|(t, d)| *t += d);
            dx = masked(&total, &masks[*from]);
        }
        self.backward(&stem, &dx, &masks[0]);
        stages
    }
}

#[test]
fn the_sparse_encoder_equals_the_dense_masked_one() {
    let gpu = support::gpu();
    let net = network();
    for (ratio, seed) in [(0.30, 1), (0.60, 2), (0.75, 3), (0.90, 4)] {
        let mask: BlockMask = random_mask(seed, GRID, (ratio * product(GRID) as f64) as usize);
        let spaces =
            model::stage_spaces(&net, VoxelLayout::dense(PATCH), Some((Mask::nth(0, GRID), mask.count()))).unwrap();
        assert!(spaces.iter().all(VoxelLayout::is_sparse));
        let voxels: Vec<Vec<f64>> = spaces.iter().map(|s| voxel_mask(s, std::slice::from_ref(&mask))).collect();
        let image = noise(seed, product(PATCH));
        let upstream: Vec<Vec<f32>> = spaces
            .iter()
            .enumerate()
            .map(|(k, s)| noise(10 * seed + k as u64, net.features[k] * product(s.dims)))
            .collect();

        let mut g = Graph::new(Parameters::default(), Precision::F32);
        let visible = g.mask(GRID);
        let input = g.image(1, PATCH);
        let x = g.pack(input.tensor(), 1, spaces[0]);
        let stages = model::encoder(&mut g, &net, x, &spaces);
        let (mut kept, mut arrives, mut seeds) = (Vec::new(), Vec::new(), Vec::new());
        for (k, &stage) in stages.iter().enumerate() {
            kept.push(g.keep(stage));
            let image = g.image(net.features[k], spaces[k].dims);
            seeds.push((stage, g.pack(image.tensor(), net.features[k], spaces[k])));
            arrives.push(image);
        }
        g.backward(&seeds, []);
        let graph = g.id();
        let mut session = Session::new(gpu.clone(), vec![g], None).unwrap();
        let values = initial_values(&session.parameters, Init::Torch, seed);
        let mut dense = Dense { parameters: HashMap::new(), gradients: HashMap::new() };
        for (id, v) in values.iter().enumerate() {
            session.set_weight(id, v);
            dense
                .parameters
                .insert(session.parameters.list[id].name.clone(), v.iter().map(|&x| f64::from(x)).collect());
        }
        session.set_mask(visible, &mask).unwrap();
        session.set_image(input, &image);
        arrives.iter().zip(&upstream).for_each(|(&input, u)| session.set_image(input, u));
        session.start_step();
        session.run(graph).unwrap();

        let f64s = |v: &[f32]| -> Vec<f64> { v.iter().map(|&x| f64::from(x)).collect() };
        let dense_upstream: Vec<Vec<f64>> = upstream.iter().zip(&voxels).map(|(u, m)| masked(&f64s(u), m)).collect();
        let want = dense.run(&net, &masked(&f64s(&image), &voxels[0]), &voxels, &dense_upstream);
        for (k, &stage) in kept.iter().enumerate() {
            let deviation = relative_l2(&session.read(stage).unwrap(), &want[k]);
            assert!(deviation < 3e-6, "{ratio}: stage {k} deviates by {deviation:.1e}");
        }
        for (id, p) in session.parameters.list.iter().enumerate() {
            let (got, want) = (session.gradient(id).unwrap(), &dense.gradients[&p.name]);
            if let Some(layer) = p.name.strip_suffix(".conv.bias") {
                // A bias before a norm: zero in exact arithmetic, and exactly zero here.
                let weight: f64 =
                    dense.gradients[&format!("{layer}.conv.weight")].iter().map(|g| g * g).sum::<f64>().sqrt();
                assert!(
                    got.iter().all(|&g| g == 0.0) && want.iter().all(|g| g.abs() < 1e-9 * weight),
                    "{ratio}: {}",
                    p.name
                );
                continue;
            }
            let deviation = relative_l2(&got, want);
            assert!(deviation < 2e-5, "{ratio}: gradient of {} deviates by {deviation:.1e}", p.name);
        }
    }
}
