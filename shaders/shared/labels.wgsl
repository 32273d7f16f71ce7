// Logits of a sample in channel groups over dims, from voxel first_voxel of their tensor on, and the label map that they are compared with, which may be finer: the label of a voxel is that of
// the nearest voxel (PyTorch's nearest-exact). Outputs are classes, one of which has the label's number, or with REGIONS sets of
// labels: bit c of members[label] tells whether the label belongs to region c.
struct Labels {
    dims: vec3<u32>, stride: u32,
    source: vec3<u32>, channels: u32,
    scale: vec3<f32>, first_group: u32,
    groups: u32, all_groups: u32, chunks: u32, ignore_label: u32,
    sample: u32, first_voxel: u32, pad0: u32, pad1: u32,
    members: array<vec4<u32>, 16>,
}
@group(0) @binding(0) var<uniform> params: Labels;
@group(0) @binding(1) var<storage, read_write> labels: array<f32>;

override REGIONS: bool = false;

// Zero, which no compiler can know: see space.wgsl. A grid has less than 2^16 groups along each axis.
fn hidden_zero(workgroups: vec3<u32>) -> u32 {
    return workgroups.x >> 16u;
}

// Where the logits of voxel v lie in channel group q of the segment.
fn logits_at(q: u32, v: u32) -> u32 {
    return q * params.stride + params.first_voxel + v;
}

fn voxel_total() -> u32 {
    return params.dims.x * params.dims.y * params.dims.z;
}

fn label_at(v: u32) -> u32 {
    let plane = params.dims.y * params.dims.z;
    let z = v / plane;
    let rest = v - z * plane;
    let y = rest / params.dims.z;
    let c = vec3<f32>(vec3<u32>(z, y, rest - y * params.dims.z));
    let s = min(vec3<u32>(floor((c + 0.5) * params.scale)), params.source - 1u);
    return u32(labels[(s.x * params.source.y + s.y) * params.source.z + s.z]);
}

// 1 in each of the channel group's channels that the label belongs to.
fn members_of(label: u32, group: u32) -> vec4<f32> {
    let c = vec4<u32>(group * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
    if REGIONS {
        let bits = vec4<u32>(params.members[label / 4u][label % 4u]);
        return vec4<f32>((bits >> c) & vec4<u32>(1u));
    }
    return select(vec4<f32>(0.0), vec4<f32>(1.0), c == vec4<u32>(label));
}
