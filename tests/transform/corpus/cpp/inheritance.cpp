#include <cstdio>

struct Shape {
    virtual ~Shape() { std::printf("~Shape "); }
    virtual int area() const = 0;
    int twice() const { return 2 * area(); }
protected:
    int scale = 1;
};
struct Square : Shape {
    int side;
    explicit Square(int side) : side(side) { scale = 2; }
    ~Square() override { std::printf("~Square "); }
    int area() const override { int area = side * side; return area * scale; }
};
struct Cube final : Square {
    using Square::Square;
    int area() const override { return 6 * Square::area(); }
};

int main() {
    Square square(3);
    Shape *shape = new Cube(2);
    std::printf("%d %d\n", square.twice(), shape->area());
    delete shape;
    if (Square *s = dynamic_cast<Square *>(&square)) std::printf("square %d\n", s->side);
    else std::printf("no\n");
}
