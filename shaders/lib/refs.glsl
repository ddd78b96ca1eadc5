// SPDX-License-Identifier: Apache-2.0
// Memory by its address. An index counts the unit of the view: no 64-bit integers.
#ifndef QUERN_REFS_GLSL
#define QUERN_REFS_GLSL
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require

layout(buffer_reference, std430, buffer_reference_align = 16) readonly restrict buffer U4 { uvec4 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 8) readonly restrict buffer U2 { uvec2 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) readonly restrict buffer U1 { uint v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) readonly restrict buffer F4 { vec4 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) readonly restrict buffer F1 { float v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) writeonly restrict buffer F4Out { vec4 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) writeonly restrict buffer U1Out { uint v[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) restrict buffer F1InOut { float v[]; };

#endif
