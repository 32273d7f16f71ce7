// The loss, and the matrix A of its gradient A * embeddings, from the cosines. One workgroup; an invocation makes whole rows.
// With l = max(cosine, 0) of a target and a base, o their overlap:
// loss += loss_scale * (sum of -o log(1 - |o - l| + 1e-6) / positives + sum of l^2 where o = 0 / negatives
//         + regularization * sum over pairs of bases of max(cosine, 0)).
// targets[0..2] = positives, negatives; then the overlaps, all bases of a target together. In the first two sums bases are
// constants: only the rows of targets have their derivatives.

#import step_values
#import voco

@group(0) @binding(1) var<storage, read_write> cosines: array<f32>;
@group(0) @binding(2) var<storage, read> targets: array<f32>;
@group(0) @binding(3) var<storage, read_write> coefficients: array<f32>;
@group(0) @binding(4) var<storage, read_write> loss: array<f32>;
@group(0) @binding(5) var<storage, read> values: StepValues;

override WORKGROUP: u32 = 64u;

#import reduce

const LOG_EPS: f32 = 1e-6;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let crops = params.crops + hidden_zero(workgroups);
    let first_norm = params.crops * params.crops;
    let positives = targets[0];
    let negatives = targets[1];
    let scale = values.loss_scale * values.gradient_scale;
    var sum = 0.0;
    for (var k = lane; k < crops; k += WORKGROUP) {
        let norm = cosines[first_norm + k];
        // Of the derivatives with respect to row k's cosines, times the cosines: what turning cannot change.
        var radial = 0.0;
        for (var j = 0u; j < crops; j++) {
            let c = cosines[k * params.crops + j];
            var derivative = 0.0;
            if j < params.bases && j != k {
                let logit = max(c, 0.0);
                if k < params.bases {
                    if j < k { sum += params.regularization * logit; }
                    derivative = params.regularization;
                } else {
                    let overlap = targets[2u + (k - params.bases) * params.bases + j];
                    let likeness = 1.0 - abs(overlap - logit) + LOG_EPS;
                    if overlap > 0.0 {
                        sum -= overlap * log(likeness) / positives;
                        derivative = overlap * sign(logit - overlap) / (likeness * positives);
                    } else {
                        sum += logit * logit / negatives;
                        derivative = 2.0 * logit / negatives;
                    }
                }
                if c <= 0.0 { derivative = 0.0; }
            }
            radial += derivative * c;
            coefficients[k * params.crops + j] = scale * derivative / (norm * cosines[first_norm + j]);
        }
        // A norm at its lower bound is a constant.
        coefficients[k * params.crops + k] = select(0.0, -scale * radial / (norm * norm), norm > params.eps);
    }
    let total = workgroup_sum(lane, vec4<f32>(sum, 0.0, 0.0, 0.0));
    if lane == 0u { loss[0] += values.loss_scale * total.x; }
}
