//! The loss as plain loops in f64.

/// VoCo's loss, with d loss / d embeddings: see [`Contrast`](crate::compute::ops::Contrast). `embeddings` is (features, crops), the bases first; `overlaps` is
/// (target, base).
pub fn voco(embeddings: &[f64], overlaps: &[f64], bases: usize, targets: usize, weight: f64) -> (f64, Vec<f64>) {
    let crops = bases + targets;
    let features = embeddings.len() / crops;
    let e = |k: usize, f: usize| embeddings[f * crops + k];
    let norm = |k: usize| (0..features).map(|f| e(k, f).powi(2)).sum::<f64>().sqrt().max(1e-8);
    let cosine = |i: usize, j: usize| (0..features).map(|f| e(i, f) * e(j, f)).sum::<f64>() / (norm(i) * norm(j));
    let mut gradient = vec![0.0; embeddings.len()];
    // Adds slope * d cosine(k, j) / d embedding k.
    let mut add = |k: usize, j: usize, slope: f64| {
        for f in 0..features {
            gradient[f * crops + k] += slope * (e(j, f) / norm(j) - cosine(k, j) * e(k, f) / norm(k)) / norm(k);
        }
    };
    let (sum, zeros) = (overlaps.iter().sum::<f64>(), overlaps.iter().map(|o| f64::from(u8::from(*o == 0.0)) + 1e-6));
    let (mut loss, zeros) = (0.0, zeros.sum::<f64>());
    for t in 0..targets {
        for b in 0..bases {
            let (o, c) = (overlaps[t * bases + b], cosine(bases + t, b));
            let l = c.max(0.0);
            let (value, slope) = if o > 0.0 {
                let likeness = 1.0 - (o - l).abs() + 1e-6;
                (-o * likeness.ln() / sum, o * (l - o).signum() / (likeness * sum))
            } else {
                (l * l / zeros, 2.0 * l / zeros)
            };
            loss += value;
            if c > 0.0 {
                add(bases + t, b, slope);
            }
        }
    }
    let pair = 2.0 * weight / (bases * (bases - 1)) as f64;
    for i in 0..bases {
        for j in (0..bases).filter(|&j| j != i && cosine(i, j) > 0.0) {
            loss += pair * cosine(i, j) / 2.0;
            add(i, j, pair);
        }
    }
    (loss, gradient)
}
