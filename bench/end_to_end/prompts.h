// SPDX-License-Identifier: Apache-2.0
// The five prompts of --preset latency.
#pragma once

#include <string>

namespace quern::bench {

struct Prompt {
    const char* name;
    std::string text;
};

inline std::string long_text() {
    std::string out = "Summarize the following text in two sentences.\n\n";
    for (int i = 1; i <= 5; ++i) {
        out += "Chapter " + std::to_string(i) +
               ". The mill stood where the river left the hills, and for three hundred years it had turned whenever "
               "the water was high enough. In spring the farmers brought the last of the old grain, in autumn the "
               "first of the new, and the miller weighed every sack twice: once when it came in, and once, as flour, "
               "when it left. Nobody remembered a year in which the two figures had disagreed by more than the dust "
               "on the floor. When the railway came, the village expected the mill to fall silent. Steam ground more "
               "in an hour than the stones did in a day, and the bakers of the town no longer asked where their flour "
               "was from. But the miller had a daughter who kept accounts, and she had noticed that the town paid by "
               "weight while the hills paid by taste. She sold smaller sacks at a higher price, wrote the name of the "
               "field on each of them, and let people watch the stones turn. Within two years there was a queue at "
               "the door, and within five a second wheel in the river.\n\n";
    }
    return out;
}

/// Of 14, 37, 39, 1,100 and 139 tokens as SmolLM2 counts.
inline const Prompt (&prompts())[5] {
    static const Prompt all[] = {
        {"short question", "What is the capital of Australia, and why is it not Sydney?"},
        {"code",
         "Write a C++ function that returns the median of a std::vector<double> in linear time without changing the "
         "vector. Explain what it does for an even number of elements.\n"},
        {"translation",
         "Translate into French and into German: \"The train to the coast leaves at a quarter past seven from "
         "platform nine; please have your tickets ready, and mind the gap when you board.\"\n"},
        {"long text", long_text()},
        {"JSON extraction",
         "Extract the fields name, order_number, items (with quantity and unit_price) and delivery_date from this "
         "message as JSON, and nothing else.\n\nHello, this is Ingrid Solheim. I am writing about order 20-4471: I "
         "asked for three oak shelves at 49.90 euros each and a box of 24 brass screws at 6.75 euros, but the "
         "confirmation lists only two shelves. Could you please correct that, and still deliver everything on 14 "
         "March 2025 as agreed? My telephone number has changed too, it now ends in 88. Many thanks!\n"},
    };
    return all;
}

}  // namespace quern::bench
