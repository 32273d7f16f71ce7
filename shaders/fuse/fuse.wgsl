// Volume Fusion: fused = a * foreground + (1 - a) * background with a = class / (classes - 1), the class that of the last box that
// holds the voxel, 0 outside all of them. One voxel an invocation.

struct Box { corner: vec3<u32>, class_index: u32, size: vec3<u32>, pad: u32 }
struct Fusion { boxes: u32, classes: u32, zero: u32, pad: u32, box: array<Box> }

struct Params { dims: vec3<u32>, pad: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> sampled: Fusion;
@group(0) @binding(2) var<storage, read_write> foreground: array<f32>;
@group(0) @binding(3) var<storage, read_write> background: array<f32>;
@group(0) @binding(4) var<storage, read_write> fused: array<f32>;
@group(0) @binding(5) var<storage, read_write> classes: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = (workgroup.x + workgroup.y * workgroups.x) * 64u + lane;
    let plane = params.dims.y * params.dims.z;
    if v >= params.dims.x * plane { return; }
    let z = v / plane;
    let rest = v - z * plane;
    let y = rest / params.dims.z;
    let c = vec3<u32>(z, y, rest - y * params.dims.z);
    var label = sampled.zero;
    for (var k = sampled.boxes; k > sampled.zero; k--) {
        let box = sampled.box[k - 1u];
        if all(c >= box.corner) && all(c < box.corner + box.size) {
            label = box.class_index;
            break;
        }
    }
    let a = f32(label) / f32(sampled.classes - 1u);
    fused[v] = a * foreground[v] + (1.0 - a) * background[v];
    classes[v] = f32(label);
}
