#include <stdio.h>
#include <unistd.h>

#include "greeting.h"

int main(int count, char **words) {
    for (int i = 1; i < count; i++) printf("%s, %s (%d)\n", greeting(), words[i], (int)geteuid());
    return 0;
}
