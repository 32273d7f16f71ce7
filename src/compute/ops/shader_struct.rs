//! Structs that shaders read, with a test of their layout.

/// Declares a struct of plain numbers that the WGSL struct of some shaders mirrors, and a unit test of its name that compares
/// the two: every field of the WGSL struct is one of this of the same name, offset and size, and they are equally long. Fields
/// of WGSL whose names start with `pad` fill up, or stand for what that shader does not read.
///
/// ```ignore
/// shader_struct! {
///     /// How one segment is added up.
///     struct ReduceParams is Params of ["instance_norm/statistics"] {
///         space: VoxelLayoutUniform,
///         first_group: u32,
///         pad: [u32; 3],
///     }
/// }
/// ```
macro_rules! shader_struct {
    ($(#[$attribute:meta])* $visibility:vis struct $name:ident is $wgsl:ident of [$($shader:literal),+ $(,)?] {
        $($(#[$note:meta])* $field_visibility:vis $field:ident: $type:ty),+ $(,)?
    }) => {
        $(#[$attribute])*
        #[repr(C)]
        #[derive(Clone, Copy, ::bytemuck::Pod, ::bytemuck::Zeroable)]
        $visibility struct $name {
            $($(#[$note])* $field_visibility $field: $type,)+
        }

        #[cfg(test)]
        #[test]
        #[allow(non_snake_case)] // the test of the struct has its name
        fn $name() {
            let fields =
                [$((stringify!($field), std::mem::offset_of!($name, $field), std::mem::size_of::<$type>())),+];
            for shader in [$($shader),+] {
                let rust = (stringify!($name), &fields[..], std::mem::size_of::<$name>());
                crate::compute::ops::shader_struct::tests::check(shader, stringify!($wgsl), rust);
            }
        }
    };
}

#[cfg(test)]
pub(super) mod tests {
    use crate::compute::device::recording::Kernel;
    use crate::compute::device::shaders::source;
    use crate::compute::graph::{StepValues, VoxelLayoutUniform};
    use naga::proc::{Layouter, TypeLayout};
    use naga::{ArraySize, TypeInner};
    use std::mem::{offset_of, size_of};

    /// Name, fields (name, offset, size) and size of a struct of Rust.
    type Rust<'a> = (&'a str, &'a [(&'a str, usize, usize)], usize);

    /// Panics where the struct `wgsl` of a shader has another layout.
    pub fn check(shader: &'static str, wgsl: &str, (rust, fields, size): Rust) {
        let text = source(&Kernel::new(shader));
        let module =
            naga::front::wgsl::parse_str(&text).unwrap_or_else(|e| panic!("{shader}: {}", e.emit_to_string(&text)));
        let found = module.types.iter().find(|(_, t)| t.name.as_deref() == Some(wgsl));
        let Some((_, naga::Type { inner: TypeInner::Struct { members, span }, .. })) = found else {
            panic!("{shader} has no struct {wgsl}")
        };
        let mut layouter = Layouter::default();
        layouter.update(module.to_ctx()).unwrap();
        let mut expected_size = *span as usize;
        let mut pads = Vec::new();
        let mut named = Vec::new();
        for member in members {
            let (name, offset) = (member.name.as_deref().unwrap_or_default(), member.offset as usize);
            if matches!(module.types[member.ty].inner, TypeInner::Array { size: ArraySize::Dynamic, .. }) {
                // What follows the header, as many as there are.
                expected_size = offset;
                continue;
            }
            let TypeLayout { size, .. } = layouter[member.ty];
            if name.starts_with("pad") && !fields.contains(&(name, offset, size as usize)) {
                pads.push(offset..offset + size as usize);
            } else {
                let field = (name, offset, size as usize);
                assert!(fields.contains(&field), "{shader}: {wgsl} has {field:?}, {rust} has {fields:?}");
                named.push(name);
            }
        }
        for &(name, offset, size) in fields.iter().filter(|field| !named.contains(&field.0)) {
            let unread = (offset..offset + size).step_by(4).all(|byte| pads.iter().any(|pad| pad.contains(&byte)));
            assert!(unread, "{shader}: {wgsl} lacks {name} of {rust}");
        }
        assert_eq!(size, expected_size, "{shader}: sizes of {rust} and {wgsl}");
    }

    macro_rules! fields {
        ($name:ident { $($field:ident),+ }) => {
            [$((stringify!($field), offset_of!($name, $field), {
                let value = <$name as Default>::default();
                std::mem::size_of_val(&value.$field)
            })),+]
        };
    }

    #[test]
    fn spaces_and_step_values() {
        let space =
            fields!(VoxelLayoutUniform { dims, stride, block, block_volume, grid, sparse, inverse_block, padding });
        check("layout/pack", "VoxelLayout", ("VoxelLayoutUniform", &space, size_of::<VoxelLayoutUniform>()));
        let values = fields!(StepValues { learning_rate, momentum, weight_decay, loss_scale, gradient_scale });
        check("sgd/update", "StepValues", ("StepValues", &values, size_of::<StepValues>()));
    }

    #[test]
    #[should_panic(expected = "has (\"stride\", 12, 4)")]
    fn a_field_in_another_place_is_found() {
        check("layout/pack", "VoxelLayout", ("Wrong", &[("dims", 0, 12), ("stride", 16, 4)], 64));
    }

    #[test]
    #[should_panic(expected = "lacks wanted of Wrong")]
    fn a_field_that_the_shader_lacks_is_found() {
        let mut fields =
            fields!(VoxelLayoutUniform { dims, stride, block, block_volume, grid, sparse, inverse_block, padding })
                .to_vec();
        fields.push(("wanted", 64, 4));
        check("layout/pack", "VoxelLayout", ("Wrong", &fields, 68));
    }
}
