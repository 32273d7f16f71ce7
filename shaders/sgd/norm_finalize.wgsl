// norm[0] = L2 norm of the whole gradient, norm[1] = the factor that clips it: min(1, clip / (norm + 1e-6)), as
// torch.nn.utils.clip_grad_norm_. One workgroup.

struct Params { count: u32, clip: f32, pad0: u32, pad1: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> partial: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> norm: array<f32>;

override WORKGROUP: u32 = 64u;

#import reduce

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(local_invocation_index) lane: u32) {
    var sum = vec4<f32>(0.0);
    for (var k = lane; k < params.count; k += WORKGROUP) { sum += partial[k]; }
    sum = workgroup_sum(lane, sum);
    if lane == 0u {
        let total = sqrt(sum.x + sum.y + sum.z + sum.w);
        norm[0] = total;
        norm[1] = min(1.0, params.clip / (total + 1e-6));
    }
}
