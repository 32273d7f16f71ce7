// From the chunks of `moments`: mean, least and largest, or with SQUARES the standard deviation (of a sample), into
// moments[SLOT] = (mean, least, largest, deviation). One workgroup.

#import augment

@group(0) @binding(2) var<storage, read_write> partial: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> moments: array<vec4<f32>>;

override SQUARES: bool = false;
override SLOT: u32 = 0u;

#import extremes

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lane: u32) {
    var found = NOTHING;
    for (var k = lane; k < params.chunks + sampled.zero; k += 64u) { found = joined(found, partial[k]); }
    found = of_workgroup(lane, found);
    if lane != 0u { return; }
    let total = f32(voxel_total());
    if SQUARES {
        moments[SLOT].w = sqrt(found.x / max(total - 1.0, 1.0));
    } else {
        moments[SLOT] = vec4<f32>(found.x / total, found.y, found.z, 0.0);
    }
}
