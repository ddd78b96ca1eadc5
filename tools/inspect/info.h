// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "formats/gguf.h"

namespace quern::tools {

/// Everything a GGUF file says of itself: header, metadata, tensors with shapes (columns first) and bytes.
/// Arrays of more than `max_array` elements are given as {"type", "count"}.
nlohmann::ordered_json describe_file(const gguf::File& file, std::size_t max_array);

/// The same for a person to read.
std::string describe_file_text(const gguf::File& file);

}  // namespace quern::tools
