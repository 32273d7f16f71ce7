//! Initial values of parameters, a pure function of the seed and the parameter's name.

use crate::base::{Purpose, rng};
use crate::compute::graph::{Parameter, Parameters, Role};
use rand::RngExt;
use rand_distr::{Distribution, Normal};
use serde::{Deserialize, Serialize};

/// Which initialisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Init {
    /// PyTorch's own: weights and biases of convolutions U(-1/sqrt(fan_in), 1/sqrt(fan_in)). nnssl pre-trains from it.
    Torch,
    /// nnU-Net's: He normal for a leaky ReLU of 0.01, biases 0, and the last norm of each residual block 0, so that blocks start
    /// as identities.
    He,
}

/// Standard deviation and bound of the truncated normal of mask tokens.
const TOKEN_STD: f64 = 0.02;

/// Values of every parameter in order, each in PyTorch's order.
pub fn initial_values(parameters: &Parameters, init: Init, seed: u64) -> Vec<Vec<f32>> {
    parameters.list.iter().map(|p| values(p, init, seed)).collect()
}

fn values(p: &Parameter, init: Init, seed: u64) -> Vec<f32> {
    let n = p.shape.iter().product();
    // The name is the key, not the position: a network with one more layer starts the others as before.
    let mut r = rng(seed, Purpose::Weights, name_key(&p.name), 0);
    match (p.role, init) {
        (Role::Token, _) => {
            let normal = Normal::new(0.0, TOKEN_STD).expect("a positive deviation");
            normal.sample_iter(&mut r).filter(|x| x.abs() <= TOKEN_STD).map(|x| x as f32).take(n).collect()
        }
        (Role::NormScale { before_residual: true } | Role::Bias { .. }, Init::He) | (Role::NormShift, _) => {
            vec![0.0; n]
        }
        (Role::NormScale { .. }, _) => vec![1.0; n],
        (Role::Weight { fan_in } | Role::Bias { fan_in }, Init::Torch) => {
            let bound = 1.0 / (fan_in as f32).sqrt();
            (0..n).map(|_| r.random_range(-bound..=bound)).collect()
        }
        (Role::Weight { fan_in }, Init::He) => {
            let std = (2.0 / ((1.0 + 1e-4) * fan_in as f64)).sqrt();
            let normal = Normal::new(0.0, std).expect("a positive deviation");
            (0..n).map(|_| normal.sample(&mut r) as f32).collect()
        }
    }
}

/// FNV-1a of the name.
fn name_key(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}
