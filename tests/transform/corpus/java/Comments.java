/* class Other { */
public class Main { // }
    /** Doc { comment. */
    static int plain(int n) { // }
        int a = 1; /* ; */ int b = 2; // for (;;) {
        if (n /* > 100 */ > 3) /* { */ { a += n; /* } */ }
        else // if (n == 10)
            b -= n;
        for (int i = 0; /* never? */ i < n; /* i-- */ i++) // }
            a += i; // a -= i;
        while (b < 3) // b
            /* grow */ b++;
        return a * 100 + b;
    }
    public static void main(String[]args){int a=2;int b=3;System.out.println(plain(a)+" // "+plain(5)+b);}
}
