// Loss and the derivatives that the gradient needs, from the sums. One workgroup.
// loss += loss_scale * weight * (weight_ce * entropy * entropy_factor - weight_dice * mean of dice),
// dice = (2 both + smooth) / max(annotated + predicted + smooth, 1e-8), over classes from first_class on, and over samples
// unless batch_dice adds these up first. gradient_scale * d loss / d p = a * member + b for each sample and channel:
// coefficients[(sample * 2) * groups + group] = a, [(sample * 2 + 1) * groups + group] = b; the last element holds the factor of
// the cross entropy's derivative.

#import step_values

struct Params {
    groups: u32, channels: u32, samples: u32, first_class: u32,
    batch_dice: u32, ignores: u32, pad0: u32, pad1: u32,
    smooth_term: f32, weight_ce: f32, weight_dice: f32, weight: f32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> sums: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> coefficients: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> loss: array<f32>;
@group(0) @binding(4) var<storage, read> values: StepValues;

override WORKGROUP: u32 = 64u;
override REGIONS: bool = false;

#import reduce

fn sum_of(sample: u32, kind: u32, group: u32) -> vec4<f32> {
    return sums[(sample * 5u + kind) * params.groups + group];
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let zero = workgroups.x >> 16u;
    let samples = params.samples + zero;
    let scale = values.loss_scale * params.weight;
    let gradient_scale = scale * values.gradient_scale;
    let classes = f32(params.channels - params.first_class);
    var voxels = 0.0;
    for (var s = 0u; s < samples; s++) { voxels += sum_of(s, 4u, 0u).x; }
    var entropy_factor = select(0.0, 1.0 / max(voxels, 1.0), voxels > 0.0);
    if REGIONS && params.ignores + zero == 0u { entropy_factor /= f32(params.channels); }
    let batch_dice = params.batch_dice + zero != 0u;
    let parts = classes * select(f32(samples), 1.0, batch_dice);
    var entropy = vec4<f32>(0.0);
    var dice = vec4<f32>(0.0);
    for (var group = lane; group < params.groups; group += WORKGROUP) {
        let c = vec4<u32>(group * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
        let counted = select(vec4<f32>(0.0), vec4<f32>(1.0),
            (c >= vec4<u32>(params.first_class)) & (c < vec4<u32>(params.channels)));
        var both = vec4<f32>(0.0);
        var area = vec4<f32>(0.0);
        for (var s = 0u; s < samples; s++) {
            entropy += sum_of(s, 3u, group);
            both += sum_of(s, 0u, group);
            area += sum_of(s, 1u, group) + sum_of(s, 2u, group);
        }
        for (var s = 0u; s < samples; s++) {
            if !batch_dice {
                both = sum_of(s, 0u, group);
                area = sum_of(s, 1u, group) + sum_of(s, 2u, group);
            }
            let bottom = max(area + params.smooth_term, vec4<f32>(1e-8));
            let value = (2.0 * both + params.smooth_term) / bottom;
            if !batch_dice || s == 0u { dice += counted * value; }
            let factor = -gradient_scale * params.weight_dice * counted / (parts * bottom);
            coefficients[(s * 2u) * params.groups + group] = 2.0 * factor;
            coefficients[(s * 2u + 1u) * params.groups + group] = -factor * value;
        }
    }
    entropy = workgroup_sum(lane, entropy);
    dice = workgroup_sum(lane, dice);
    if lane == 0u {
        let ce = params.weight_ce * entropy_factor;
        loss[0] += scale * (ce * dot(entropy, vec4<f32>(1.0)) - params.weight_dice * dot(dice, vec4<f32>(1.0)) / parts);
        coefficients[samples * 2u * params.groups] = vec4<f32>(gradient_scale * ce);
    }
}
