// norm[0] = L2 norm of the whole gradient without its scale, norm[1] = the factor that clips it, min(1, clip / (norm + 1e-6)) as
// torch.nn.utils.clip_grad_norm_, and takes the scale out. Where the loss is not finite, norm[0] is the loss, so that nothing is
// updated. One workgroup.

#import step_values

struct Params { count: u32, clip: f32, pad0: u32, pad1: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> partial: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> norm: array<f32>;
@group(0) @binding(3) var<storage, read> values: StepValues;
@group(0) @binding(4) var<storage, read_write> loss: array<f32>;

override WORKGROUP: u32 = 64u;

#import reduce

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(local_invocation_index) lane: u32) {
    var sum = vec4<f32>(0.0);
    for (var k = lane; k < params.count; k += WORKGROUP) { sum += partial[k]; }
    sum = workgroup_sum(lane, sum);
    if lane == 0u {
        let total = sqrt(sum.x + sum.y + sum.z + sum.w) / values.gradient_scale;
        let finite = (bitcast<u32>(loss[0]) & 0x7f800000u) != 0x7f800000u;
        norm[0] = select(loss[0], total, finite);
        norm[1] = min(1.0, params.clip / (total + 1e-6)) / values.gradient_scale;
    }
}
