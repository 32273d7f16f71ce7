// Template of workgroup memory that cooperative matrices are loaded from and stored to: arrays of vectors of four, or of their
// scalars where SCALARS says so, since Metal loads matrices through pointers to scalars only. Places and row lengths are counted
// in vectors.

{% set SCALARS = SCALARS | default(0) %}
{% macro staged_array(name, scalar, vectors) -%}
var<workgroup> {{ name }}: array<{{ scalar if SCALARS else "vec4<" ~ scalar ~ ">" }}, {{ vectors * 4 if SCALARS else vectors }}>;
{%- endmacro %}
{% macro set_staged(name, at, value) %}
{% if SCALARS %}
{
    let first = ({{ at }}) * 4u;
    let four = {{ value }};
    {% for c in range(4) %}
    {{ name }}[first + {{ c }}u] = four[{{ c }}];
    {% endfor %}
}
{% else %}
{{ name }}[{{ at }}] = {{ value }};
{% endif %}
{% endmacro %}
{% macro get_staged(name, at, scalar) -%}
{% if SCALARS -%}
vec4<{{ scalar }}>({{ name }}[({{ at }}) * 4u], {{ name }}[({{ at }}) * 4u + 1u], {{ name }}[({{ at }}) * 4u + 2u], {{ name }}[({{ at }}) * 4u + 3u])
{%- else -%}
{{ name }}[{{ at }}]
{%- endif %}
{%- endmacro %}
{# Pointer and row length of a matrix that starts at vector `at`. #}
{% macro matrix_at(name, at, row) -%}
{% if SCALARS -%}
&{{ name }}[({{ at }}) * 4u], {{ row * 4 }}u
{%- else -%}
&{{ name }}[{{ at }}], {{ row }}u
{%- endif %}
{%- endmacro %}
