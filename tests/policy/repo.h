// SPDX-License-Identifier: Apache-2.0
// The tree as the policy tests see it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace quern::policy {

/// Paths that git tracks, relative to the root, sorted; empty where this is no git checkout.
std::vector<std::string> tracked_files();
/// C++ and C files under a folder of the tree ("formats", ...), tracked or not, sorted.
std::vector<std::string> sources(std::string_view folder);
/// The same for every folder of our own code.
std::vector<std::string> all_sources();
/// A file of the tree, whole.
std::string read(const std::string& path);
std::vector<std::string> lines(const std::string& text);
/// The text with comments and the insides of string and character literals blanked; line breaks stay.
std::string code_only(const std::string& text);

}  // namespace quern::policy
